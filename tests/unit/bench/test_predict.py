"""Predictions: bound, likely value, memory and energy of a tiny artifact on made-up targets, and the label that keeps them apart."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_run import timing_row
from target_profiles import class_rates, figure, gpu, rate, x86
from tiny_models import pointwise_artifact

from edge_latup.bench import predict_memory
from edge_latup.bench.predict import NOT_EXECUTED, predict
from edge_latup.bench.predict_graph import work_of
from edge_latup.bench.predict_records import Prediction
from edge_latup.bench.published_cases import CASES
from edge_latup.bench.records import TimingRow
from edge_latup.bench.store import RunStore
from edge_latup.bench.sweep_records import CellKey
from edge_latup.bench.sweep_store import SweepStore
from edge_latup.errors import InputError, SpecError
from edge_latup.records import read_record, write_record
from edge_latup.targets.profile import PowerMode, Refusal

if TYPE_CHECKING:
    from tiny_models import Compress

    from edge_latup.artifact import Artifact

RATES = class_rates()


def test_the_bound_is_the_needed_arithmetic_at_the_peak(tiny_fp32: Artifact) -> None:
    """Everything in the tiny network fits into a cache, so nothing but arithmetic is charged."""
    found = predict(tiny_fp32, x86(100.0), rates=RATES)
    needed = sum(operation.needed_macs for operation in work_of(tiny_fp32).operations)
    assert found.bound_ms == pytest.approx(needed / 100e9 * 1000)
    assert found.bound_ms == pytest.approx(sum(layer.bound_ms for layer in found.layers))
    assert found.macs == 98_370_336


def test_the_likely_value_is_the_sum_of_its_layers_and_not_below_the_bound(tiny_fp32: Artifact) -> None:
    found = predict(tiny_fp32, x86(100.0), rates=RATES)
    assert found.likely_ms == pytest.approx(sum(layer.likely_ms or 0 for layer in found.layers))
    assert found.likely_range_ms is not None
    assert found.bound_ms <= found.likely_range_ms[1]
    assert found.likely_range_ms[0] < (found.likely_ms or 0) < found.likely_range_ms[1]
    assert "scaled by the ratio of the peak rates" in found.method
    assert "the network itself was not executed" in found.evidence


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4)
@given(rates=st.lists(st.floats(1.0, 1e5), min_size=2, max_size=2), bandwidths=st.lists(st.floats(1.0, 1e3), min_size=2, max_size=2))
def test_a_faster_target_is_never_slower(tiny_fp32: Artifact, rates: list[float], bandwidths: list[float]) -> None:
    for make in (x86, gpu):
        slow = predict(tiny_fp32, make(min(rates), bandwidth=min(bandwidths)), rates=RATES)
        fast = predict(tiny_fp32, make(max(rates), bandwidth=max(bandwidths)), rates=RATES)
        assert fast.bound_ms <= slow.bound_ms
        assert fast.likely_ms is not None
        assert slow.likely_ms is not None
        assert fast.likely_ms <= slow.likely_ms * (1 + 1e-9)


def test_a_larger_input_is_never_faster(tmp_path: Path) -> None:
    artifact = pointwise_artifact(tmp_path / "free")
    for profile in (x86(), gpu()):
        found = [predict(artifact, profile, size=(side, side, 16), rates=RATES) for side in (8, 16, 32, 64)]
        assert all(one.likely_ms is not None and one.bound_ms <= one.likely_ms for one in found)
        for smaller, larger in pairwise(found):
            assert smaller.bound_ms < larger.bound_ms
            assert (smaller.likely_ms or 0) < (larger.likely_ms or 0)
            assert smaller.memory.total < larger.memory.total


def test_fewer_threads_are_never_faster(tiny_fp32: Artifact) -> None:
    one, two = (predict(tiny_fp32, x86(), threads=threads, rates=RATES) for threads in (1, 2))
    assert one.bound_ms == pytest.approx(2 * two.bound_ms)
    assert (one.threads, predict(tiny_fp32, gpu(), threads=1).threads) == (1, None)


def test_without_class_rates_there_is_a_bound_and_no_guess(tiny_fp32: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_latup.bench.predict.shipped_rates", lambda isa: None)
    found = predict(tiny_fp32, x86())
    assert (found.likely_ms, found.likely_range_ms) == (None, None)
    assert found.bound_ms > 0
    assert "no class rates of this instruction set were measured" in found.method


def test_native_rates_serve_only_the_cpu_they_were_measured_on(tiny_fp32: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """What "native" stands for on one CPU says nothing of another, such as one with AMX."""
    native = class_rates(isa="native", emulated=False)
    monkeypatch.setattr("edge_latup.bench.predict.shipped_rates", lambda isa: native if isa == "native" else None)
    assert predict(tiny_fp32, x86(isa="native")).likely_ms is None
    assert predict(tiny_fp32, x86(isa="native", processor=native.host.cpu)).likely_ms is not None


def test_a_board_gets_a_wide_range_from_published_cases_and_says_so(tiny_fp32: Artifact) -> None:
    found = predict(tiny_fp32, gpu())
    efficiencies = [case.efficiency for case in CASES]
    assert found.likely_range_ms == (pytest.approx(found.bound_ms / max(efficiencies)), pytest.approx(found.bound_ms / min(efficiencies)))
    assert found.evidence == NOT_EXECUTED == "predicted, nothing was executed on such a device"
    assert all(case.name in found.method for case in CASES)
    assert all(layer.likely_ms is None for layer in found.layers)


def test_energy_is_never_more_than_the_limit_for_as_long_as_it_takes(tiny_fp32: Artifact) -> None:
    modes = (PowerMode(name="15W", watts=figure(15), gpu_share=figure(0.5)), PowerMode(name="7W", watts=figure(7)), PowerMode(name="MAXN"))
    found = predict(tiny_fp32, gpu(power_modes=modes))
    assert found.likely_ms is not None
    assert found.likely_range_ms is not None
    halved, unknown = found.energy
    assert (halved.mode, unknown.mode) == ("15W", "7W")
    assert halved.milliseconds == pytest.approx(2 * found.likely_ms)
    assert halved.joules_at_most == pytest.approx(15 * 2 * found.likely_range_ms[1] / 1000)
    assert (unknown.milliseconds, unknown.joules_at_most) == (None, None), "its clocks are not known"
    (board,) = predict(tiny_fp32, x86(idle_or_board_watts=figure(65)), rates=RATES).energy
    assert board.joules_at_most is not None


def test_memory_is_added_up_and_fits(tiny_fp32: Artifact) -> None:
    work, found = work_of(tiny_fp32), predict(tiny_fp32, x86(), rates=RATES).memory
    assert found.fits
    assert (found.reason, found.instead) == ("", "")
    assert (found.weights, found.activations) == (2 * work.weight_bytes, int(1.15 * work.activation_bytes))
    assert found.arrays == 4 * 16**3 * (3 + 4)
    assert found.total == found.weights + found.activations + found.arrays + found.runtime
    assert found.available == 6 << 30


def test_what_does_not_fit_says_why_and_what_would(tiny_fp32: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    found = predict(tiny_fp32, x86(memory=1.0), rates=RATES).memory
    assert not found.fits
    assert "made-up CPU leaves about 0.00 GiB of 1 GiB to a model" in found.reason
    assert "quantize ARTIFACT --method int8" in found.instead
    needed = found.weights + found.runtime + (found.activations + found.arrays) // 8
    monkeypatch.setattr(predict_memory, "SMALLER_WINDOWS", (16, 8))
    monkeypatch.setattr(predict_memory, "SYSTEM_BYTES", {"x86": (1 << 30) - needed - 1})
    assert "sliding windows of 8x8x8 would need" in predict(tiny_fp32, x86(memory=1.0), rates=RATES).memory.instead


def test_a_precision_the_target_lacks_is_refused_with_what_to_do_instead(compressed: Compress) -> None:
    artifact = compressed("int8", "openvino")
    with pytest.raises(InputError, match="made-up states no rate in int8") as bare:
        predict(artifact, x86(int8=None), rates=RATES)
    assert bare.value.hint == "it computes in fp32"
    refused = {"int8": Refusal(reason="It has no INT8 units.", instead="FP16.", source="made up")}
    with pytest.raises(InputError, match="made-up refuses int8: It has no INT8 units.") as told:
        predict(artifact, gpu(int8=None, refused=refused))
    assert told.value.hint == "instead: FP16."


def test_a_runtime_the_target_lacks_and_a_dla_are_noted(tiny_fp32: Artifact) -> None:
    notes = " ".join(predict(tiny_fp32, gpu(dla_cores=2)).notes)
    assert "the artifact was made for openvino, onnxruntime; this target runs tensorrt" in notes
    assert "the DLA takes 2-D tensors only" in notes


def test_class_rates_of_another_instruction_set_are_noted(tiny_fp32: Artifact) -> None:
    other = class_rates(rate("convolution"), rate("norm"), isa="avx512")
    assert any("measured under avx512, the target runs avx2" in note for note in predict(tiny_fp32, x86(), rates=other).notes)
    assert not predict(tiny_fp32, x86(), rates=RATES).notes


def test_a_prediction_can_never_be_read_as_a_measurement(tiny_fp32: Artifact, tmp_path: Path) -> None:
    found = predict(tiny_fp32, x86(), rates=RATES)
    assert json.loads(found.model_dump_json())["label"] == "predicted"
    store = RunStore(tmp_path / "run")
    path = store.row_path(found.artifact)
    path.parent.mkdir(parents=True)
    write_record(found, path)
    assert read_record(Prediction, path) == found
    with pytest.raises(SpecError, match="is not a valid TimingRow"):
        store.read_row(found.artifact)
    cell = CellKey(artifact=found.artifact, runtime="openvino", threads=2)
    sweep = SweepStore(tmp_path / "sweep")
    sweep.write(found, sweep.row_path(cell))
    with pytest.raises(SpecError, match="is not a valid SweepRow"):
        sweep.read_row(cell)


def test_a_measurement_relabelled_as_predicted_is_refused(tmp_path: Path) -> None:
    row = timing_row("fp32")
    path = tmp_path / "row.json"
    write_record(row, path)
    assert read_record(TimingRow, path) == row
    path.write_text(json.dumps(row.model_dump(mode="json") | {"label": "predicted"}))
    with pytest.raises(SpecError, match="label: Input should be 'measured'"):
        read_record(TimingRow, path)
