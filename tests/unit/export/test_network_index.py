"""The index of networks: its computed figures are recomputed, its specs are sound, and reading it needs no PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from command import Command

from edge_latup.errors import InputError
from edge_latup.export.cost import cost_of_known
from edge_latup.export.network_index import known_network, known_networks
from edge_latup.export.published import remarks
from edge_latup.networks.build import build

NAMES = [known.name for known in known_networks()]
READ = """
import sys; sys.path[:] = filter(None, sys.path)
from edge_latup.cli import main
sys.argv = ["edge-latup", "networks"]
try:
    main()
finally:
    print("LOADED", sorted({"torch", "onnx", "nncf", "openvino", "onnxruntime"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_module(name: str) -> None:
    known = known_network(name)
    with torch.device("meta"):
        network = build(known.network)
    assert sum(p.numel() for p in network.parameters()) == known.parameters
    assert sum(b.numel() for key, b in network.named_buffers() if not key.endswith("tracked")) == known.running_statistics
    cost = cost_of_known(name)
    assert (cost.parameters, cost.convolution_macs, cost.input_shape) == (known.parameters, known.macs, known.cost_input)


def test_every_network_of_the_issue_is_there_with_its_contradictions() -> None:
    assert {"latup-net", "attention-resnet-unet", "attention-resnet-unet-flops-matched", "res-unet-cbam"} <= set(NAMES)
    assert any("factor of 100" in line for line in known_network("latup-net").remarks())
    assert any("0.915 and 0.920" in line and "disagree" in line for line in known_network("attention-resnet-unet").remarks())
    assert any("127 MB to 32 MB" in line for line in known_network("res-unet").remarks())


@pytest.mark.parametrize("name", ["attention-resnet-unet", "attention-resnet-unet-flops-matched"])
def test_the_protocol_of_attention_resnet_unet(name: str) -> None:
    spec = known_network(name).spec
    assert (spec.normalisation, spec.resize, spec.spatial.size, spec.views) == (
        "z_score_nonzero", (192, 192, 128), (64, 64, 64), ("identity", "mirror", "rotate"),
    )  # fmt: skip
    assert (spec.post_process.min_component_voxels, spec.post_process.connectivity, spec.post_process.threshold) == (150, 26, 0.5)
    assert known_network(name).learns_histogram


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_has_a_background_or_regions(name: str) -> None:
    spec = known_network(name).trained_spec
    assert spec.network is not None
    assert spec.regions is not None or (spec.labels == (0, 1, 2, 3) and spec.network.out_channels == 4)
    assert spec.regions is not None or spec.post_process.threshold is None


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError) as caught:
        known_network("resunet")
    assert "res-unet-gate" in caught.value.hint


def test_a_network_is_recognised_by_its_parameters() -> None:
    assert remarks(cost_of_known("res-unet-gate")) == known_network("res-unet-gate").remarks()


def test_the_listing_imports_no_framework() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=False)
    assert done.stdout.rstrip().endswith("LOADED []"), done.stderr
    assert all(name in done.stdout for name in NAMES)


def test_the_listing_as_json(cli: Command) -> None:
    done = cli("--json", "networks")
    assert (done.code, done.err) == (0, "")
    listed = {row["name"]: row for row in done.data}
    assert list(listed) == NAMES
    assert listed["res-unet"]["outputs"] == "regions WT"
    assert listed["attention-resnet-unet"]["macs"] == 19_498_008_576


def test_a_network_is_inspected_by_name(cli: Command) -> None:
    done = cli("inspect", "--network", "attention-resnet-unet", "--size", "32")
    assert done.code == 0, done.err
    assert "parameters: 3,472,287" in done.out
    assert "published: Dice, whole tumour 0.915 and 0.920" in done.out
    assert f"convolution MAC: {19_498_008_576 // 8:,}" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--network", "res-unet", "--size", "40"), "40 is not a multiple of 16"), (("--network", "u-net"), "'u-net' is not known"),
        (("folder", "--network", "res-unet"), "--network takes the place of a folder"), ((), "no model given"),
    ],
)  # fmt: skip
def test_what_inspect_cannot_show_is_refused(cli: Command, arguments: tuple[str, ...], told: str) -> None:
    done = cli("inspect", *arguments)
    assert done.code == 2
    assert told in done.err
