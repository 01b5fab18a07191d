"""A pass is kept by what was measured: fresh processes, in turn, a ratio with its noise, and all of it in the manifest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import drawn, model_of
from tiny_models import pointwise_artifact, tiny_spec

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.errors import ArtifactError, EdgeLatupError, InputError
from edge_latup.manifest import Manifest
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.surgery import measure, passes, plan, timing
from edge_latup.quantize.surgery.measure import Comparison, Effort, compare_models
from edge_latup.quantize.surgery.passes import PASSES, Pass, choose_passes
from edge_latup.quantize.surgery.plan import PassOutcome, Rewriting, plan_rewrite

QUICK = Effort(pairs=2, seconds=0)
EQUAL = {"max_abs": 0.0, "relative_l2": 0.0, "argmax_agreement": 1.0}


def comparison(ratios: list[float], **difference: float) -> Comparison:
    """Pairs in which the model before took 100 ms."""
    return Comparison(
        before_ms=(100.0,) * len(ratios), after_ms=tuple(100 * ratio for ratio in ratios), before_peak_bytes=2, after_peak_bytes=1,
        threads=2, difference=EQUAL | difference,
    )  # fmt: skip


def a_network(folder: Path, **changes: Any) -> Artifact:
    """An artifact of 3 channels to 4 by way of a dropout, a batch norm and 6 inner channels; changes replace its constants."""
    import onnx
    from onnx import helper

    constants = {
        "v": drawn(0, 6, 3, 3, 3, 3), "w": drawn(1, 4, 6, 1, 1, 1), "s": drawn(2, 6), "t": drawn(3, 6), "m": drawn(4, 6),
        "q": np.abs(drawn(5, 6)) + 0.1,
    } | changes  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], pads=[1] * 6),
        helper.make_node("BatchNormalization", ["a", "s", "t", "m", "q"], ["n"], name="norm1"),
        helper.make_node("Dropout", ["n"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"], axis=1),
    ]
    model = model_of(nodes, constants, [1, 3, 16, 16, 16])
    fields: dict[str, Any] = {
        "name": folder.name, "spec": tiny_spec(network=None), "format": "onnx", "runtimes": ("openvino", "onnxruntime"),
        "precision": "fp32", "storage": "float32", "input_shape": (1, 3, 16, 16, 16),
    }  # fmt: skip
    return write_artifact(folder, Manifest.model_validate(fields), lambda out: onnx.save(model, out / "model.onnx"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the comparison of a pass shall find, by its name: a Comparison or an error."""
    found: dict[str, Any] = {}

    def compare_models(before: Artifact, after: Artifact, *others: Any) -> Comparison:
        outcome = found.get(after.folder.name, comparison([0.9] * 3))
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Comparison)
        return outcome

    monkeypatch.setattr(plan, "compare_models", compare_models)
    return found


@pytest.mark.parametrize(
    ("ratios", "ratio", "noise", "verdict"),
    [
        ([0.9, 0.8, 0.85, 0.9, 0.8], 0.85, 0.1, "faster"),
        ([1.0, 1.005, 1.0, 0.995, 1.0], 1.0, 0.01, "the same"),
        ([1.05, 1.06, 1.05, 1.04, 1.05], 1.05, 0.01, "slower"),
        ([1.05, 1.5, 1.3, 0.8, 1.1], 1.1, 0.25, "the same"),
        ([1.5, 1.45, 0.2, 1.5, 1.55], 1.5, 0.05, "slower"),
        ([0.5], 0.5, 0.01, "faster"),
    ],
)
def test_a_ratio_is_judged_by_the_middle_half_of_its_pairs(ratios: list[float], ratio: float, noise: float, verdict: str) -> None:
    found = comparison(ratios)
    assert found.ratio == pytest.approx(ratio)
    assert found.noise == pytest.approx(noise)
    assert {"faster": (True, False), "the same": (False, False), "slower": (False, True)}[verdict] == (found.faster, found.slower)


def test_the_models_take_turns_in_going_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [pointwise_artifact(tmp_path / name, (16, 16, 16)) for name in ("before", "after")]
    order: list[str] = []

    def run_fresh(module: str, arguments: list[str], who: str) -> None:
        order.append(who.split()[0])
        assert sys.modules[module].main(arguments) == 0

    monkeypatch.setattr(measure, "run_fresh", run_fresh)
    told: list[str] = []
    found = compare_models(*models, "onnxruntime", Effort(pairs=3, seconds=0), told.append)
    assert order == ["after", "before", "before", "after", "after", "before"]
    assert len(found.before_ms) == len(found.after_ms) == len(told) == 3
    assert found.difference == EQUAL
    assert min(found.before_ms + found.after_ms) > 0


def test_each_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    models = [pointwise_artifact(tmp_path / name, (16, 16, 16)) for name in ("before", "after")]
    found = compare_models(*models, "onnxruntime", Effort(pairs=1, seconds=0))
    assert found.difference == EQUAL
    assert timing.__name__ == "edge_latup.quantize.surgery.timing"
    if sys.platform == "linux":
        assert min(found.before_peak_bytes, found.after_peak_bytes) > 1 << 20


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    model = pointwise_artifact(tmp_path / "broken", (16, 16, 16))
    model.model_path.write_bytes(b"not ONNX")
    with pytest.raises(InputError, match=r"broken on onnxruntime: ONNX Runtime cannot load"):
        compare_models(model, model, "onnxruntime", Effort(pairs=1, seconds=0))


def outcomes(options: dict[str, Any]) -> dict[str, PassOutcome]:
    return {name: PassOutcome.model_validate(outcome) for outcome in options["outcomes"] if (name := outcome["name"])}


def test_the_plan_names_what_was_kept_and_why_the_rest_was_not(tmp_path: Path, measured: dict[str, Any]) -> None:
    measured["fold-batch-norm"] = comparison([1.2, 1.2, 1.3])
    told: list[str] = []
    asked = Rewriting(passes=(*choose_passes(()), "pad-channels-8"), effort=QUICK, tell=told.append)
    options = plan_rewrite(a_network(tmp_path / "fp32"), "openvino", asked)
    found = outcomes(options)
    assert list(found) == ["remove-no-ops", "fold-batch-norm", "fuse-upsampling", "pad-channels-8"]
    assert options["passes"] == ["remove-no-ops"]
    dropped = found["fold-batch-norm"]
    assert (dropped.places, dropped.kept, dropped.ratio, dropped.n) == (1, False, pytest.approx(1.2), 3)
    assert dropped.why == "1.200 of the time before (noise 0.050, 3 pairs)"
    assert (found["fuse-upsampling"].places, found["fuse-upsampling"].why) == (0, "there is nothing to change")
    assert found["pad-channels-8"].places == 0, "the batch norm that was not folded stands in between"
    assert [line.partition(":")[0] for line in told] == list(found)


@pytest.mark.parametrize(("ratio", "kept"), [(0.9, True), (1.0, False)])
def test_a_pass_that_adds_work_must_be_faster(ratio: float, kept: bool, tmp_path: Path, measured: dict[str, Any]) -> None:
    measured["pad-channels-8"] = comparison([ratio] * 3)
    measured["remove-no-ops"] = comparison([1.0] * 3)
    asked = Rewriting(passes=("remove-no-ops", "fold-batch-norm", "pad-channels-8"), effort=QUICK)
    options = plan_rewrite(a_network(tmp_path / "fp32"), "openvino", asked)
    assert options["passes"] == ["remove-no-ops", "fold-batch-norm", *(["pad-channels-8"] if kept else [])]


def test_what_moves_the_output_or_does_not_load_is_not_kept_however_fast(tmp_path: Path, measured: dict[str, Any]) -> None:
    measured["fold-batch-norm"] = comparison([0.1] * 3, max_abs=2e-4)
    measured["remove-no-ops"] = ArtifactError("the runtime cannot load it")
    source = a_network(tmp_path / "fp32")
    with pytest.raises(ArtifactError, match="is worth keeping on openvino: remove-no-ops: the runtime cannot load it; fold") as caught:
        plan_rewrite(source, "openvino", Rewriting(effort=QUICK))
    assert "not equal: max_abs 0.0002 (bound 0.0001)" in caught.value.message


def test_a_wrong_pass_is_caught_by_the_real_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halve(graph: Any) -> int:
        from onnx import numpy_helper

        tensor = next(tensor for tensor in graph.initializer if tensor.name == "v")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 2, "v"))
        return 1

    monkeypatch.setitem(PASSES, "remove-no-ops", Pass(apply=halve, summary="no rewrite at all", by_default=True))
    with pytest.raises(ArtifactError, match="remove-no-ops: not equal: max_abs"):
        plan_rewrite(a_network(tmp_path / "fp32"), "onnxruntime", Rewriting(passes=("remove-no-ops",), effort=Effort(pairs=1, seconds=0)))
    with pytest.raises(ArtifactError, match="does not compute what"):
        quantize(a_network(tmp_path / "again"), "rewrite", tmp_path / "out", rewriting=Rewriting(passes=("remove-no-ops",)))
    assert not (tmp_path / "out").exists()


def test_the_artifact_is_made_by_the_kept_passes_and_its_recipe_can_be_followed(tmp_path: Path, measured: dict[str, Any]) -> None:
    source = a_network(tmp_path / "fp32")
    made = quantize(source, "rewrite", tmp_path / "made", rewriting=Rewriting(passes=tuple(PASSES), effort=QUICK))
    parameters = made.manifest.recipe[-1].parameters
    assert parameters["passes"] == ["remove-no-ops", "fold-batch-norm", "pad-channels-8", "pad-channels-16", "pad-channels-32"]
    found = outcomes(parameters)["fold-batch-norm"]
    assert (found.ratio, found.n, found.measured) == (pytest.approx(0.9), 3, comparison([0.9] * 3))
    assert made.manifest.parity[-1].tolerance == passes.TOLERANCE
    passes.rewrite(source.model_path, tmp_path / "again.onnx", parameters["passes"])
    assert (tmp_path / "again.onnx").read_bytes() == made.model_path.read_bytes()


def test_unmeasured_is_said(tmp_path: Path) -> None:
    made = quantize(a_network(tmp_path / "fp32"), "rewrite", tmp_path / "made", runtime="onnxruntime")
    assert {(found.kept, found.why) for found in outcomes(made.manifest.recipe[-1].parameters).values()} == {
        (True, "not measured"), (False, "there is nothing to change"),
    }  # fmt: skip


def test_statistics_that_were_never_updated_stop_the_rewrite_unless_they_are_meant(tmp_path: Path) -> None:
    source = a_network(tmp_path / "fp32", m=np.zeros(6, np.float32), q=np.ones(6, np.float32))
    with pytest.raises(ArtifactError, match="norm1") as caught:
        quantize(source, "rewrite", tmp_path / "made")
    assert "--trust-batch-norm" in caught.value.hint
    assert not (tmp_path / "made").exists()
    quantize(source, "rewrite", tmp_path / "unfolded", rewriting=Rewriting(passes=("remove-no-ops",)))
    made = quantize(source, "rewrite", tmp_path / "made", rewriting=Rewriting(trust_batch_norm=True))
    assert made.manifest.recipe[-1].parameters["trust_batch_norm"] is True
    assert "fold-batch-norm" in made.manifest.recipe[-1].parameters["passes"]


def test_wrong_passes_are_refused(tiny_fp32: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown pass 'fold'") as caught:
        quantize(tiny_fp32, "rewrite", tmp_path / "out", rewriting=Rewriting(passes=("fold",)))
    assert all(name in caught.value.hint for name in PASSES)
    with pytest.raises(InputError, match="fp16 rewrites no graph"):
        quantize(tiny_fp32, "fp16", tmp_path / "out", rewriting=Rewriting())
    assert issubclass(InputError, EdgeLatupError)
    assert not (tmp_path / "out").exists()
