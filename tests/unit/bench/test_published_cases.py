"""Networks of published figures against PyTorch and known counts; each case is left out of its own prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from edge_latup.bench import published_cases
from edge_latup.bench.predict_graph import work_of
from edge_latup.bench.published_cases import CASES, check_published, likely_from
from edge_latup.bench.published_networks import convolution, latup_net, nnunet

if TYPE_CHECKING:
    from edge_latup.artifact import Artifact

LATUP_MACS_128 = 788_730_478_592


def test_latup_net_has_the_known_macs() -> None:
    assert sum(operation.macs for operation in latup_net((1, 3, 128, 128, 128), "fp32")) == LATUP_MACS_128


def test_latup_net_is_what_an_exported_graph_holds(tiny_fp32: Artifact) -> None:
    """Operation by operation: MACs, MACs that fall on data, channels and kernel, whatever the order."""

    def facts(operations: object) -> list[tuple[object, ...]]:
        return sorted((o.macs, o.needed_macs, o.kernel, o.channels, o.voxels) for o in operations)  # type: ignore[attr-defined]

    graph = [operation for operation in work_of(tiny_fp32).operations if operation.kind == "convolution"]
    assert facts(latup_net((1, 3, 16, 16, 16), "fp32", width=8)) == facts(graph)


@pytest.mark.parametrize(("kernel", "stride", "transposed"), [(3, 1, False), (3, 2, False), (1, 1, False), (2, 2, True)])
def test_one_convolution_is_what_pytorch_computes(kernel: int, stride: int, transposed: bool) -> None:
    """Ones convolved with ones: the sum of the output counts the products that fall on data."""
    import torch
    from torch.nn import functional

    written, channels = (4, 6, 8), (2, 3)
    read = [side // stride if transposed else side * stride for side in written]
    image = torch.ones(1, channels[0], *read)
    if transposed:
        output = functional.conv_transpose3d(image, torch.ones(channels[0], channels[1], *[kernel] * 3), stride=stride)
    else:
        output = functional.conv3d(image, torch.ones(channels[1], channels[0], *[kernel] * 3), stride=stride, padding=kernel // 2)
    found = convolution("c", channels, kernel, written, "fp32", stride=stride, transposed=transposed)
    assert tuple(output.shape[2:]) == written
    assert found.needed_macs == int(output.sum())
    assert (found.reads, found.writes) == ((4 * image.numel(),), 4 * output.numel())
    assert found.macs == math.prod(read if transposed else written) * math.prod(channels) * kernel**3


def test_nnunet_by_hand() -> None:
    """Two stages of 2 and 4 channels on 4^3: every layer's MACs written out."""
    found = {operation.name: operation.macs for operation in nnunet((1, 1, 4, 4, 4), "int8", channels=(2, 4), classes=3)}
    assert found == {
        "encoder0.0": 64 * 1 * 2 * 27, "encoder0.1": 64 * 2 * 2 * 27, "encoder1.0": 8 * 2 * 4 * 27, "encoder1.1": 8 * 4 * 4 * 27,
        "up0": 8 * 4 * 2 * 8, "decoder0.0": 64 * 4 * 2 * 27, "decoder0.1": 64 * 2 * 2 * 27, "output": 64 * 2 * 3,
    }  # fmt: skip


def test_nnunet_has_about_its_known_parameters() -> None:
    """nnU-Net's 3-D U-Net of six stages from 32 to 320 channels has about 31 million parameters."""
    weights = sum(operation.weight_bytes for operation in nnunet((1, 4, 224, 224, 160), "int8"))
    assert weights == pytest.approx(31.2e6, rel=0.005)


def test_a_case_is_predicted_from_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a case's own published latency: what is predicted for it stays, the ratio and the others move."""
    before = check_published()
    changed = published_cases.PublishedCase(**{**vars(CASES[0]), "milliseconds": 10 * CASES[0].milliseconds})
    monkeypatch.setattr(published_cases, "CASES", (changed, *CASES[1:]))
    after = check_published()
    assert after[0].likely_ms == pytest.approx(before[0].likely_ms)
    assert after[0].ratio == pytest.approx(before[0].ratio / 10)
    assert after[3].likely_range_ms != before[3].likely_range_ms


def test_every_published_case_is_printed_with_its_ratio_whatever_it_is() -> None:
    found = check_published()
    assert [(one.target, one.published_ms) for one in found] == [
        ("rtx-3060-12gb", 168), ("jetson-agx-xavier", 374), ("jetson-xavier-nx", 627), ("tesla-t4", 153),
    ]  # fmt: skip
    for one in found:
        assert one.label == "predicted"
        assert one.bound_holds
        assert one.ratio == pytest.approx(one.likely_ms / one.published_ms)
        assert one.within == (abs(one.ratio - 1) <= 0.35)
        assert one.likely_range_ms[0] <= one.likely_ms <= one.likely_range_ms[1]
        assert one.source


def test_the_range_runs_from_the_best_to_the_worst_efficiency() -> None:
    best, worst = (pick(case.efficiency for case in CASES) for pick in (max, min))
    likely, (fast, slow) = likely_from(100.0)
    assert (fast, slow) == (pytest.approx(100 / best), pytest.approx(100 / worst))
    assert fast < likely < slow
