"""INT8 with and without the rewrite: the faster file is kept, and the manifest says what was measured of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import pointwise_artifact

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize import fastest
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.fastest import RewriteChoice, quantize_fastest
from edge_latup.quantize.surgery.measure import Comparison
from edge_latup.quantize.surgery.plan import Rewriting


def found(ratio: float) -> Comparison:
    return Comparison(
        before_ms=(100.0,) * 3, after_ms=(100 * ratio,) * 3, before_peak_bytes=2, after_peak_bytes=1, threads=2, difference={"max_abs": 0.1}
    )  # fmt: skip


@pytest.mark.parametrize(("ratio", "kept"), [(0.8, True), (1.0, True), (1.3, False)])
def test_the_rewritten_one_is_kept_unless_it_is_slower(
    ratio: float, kept: bool, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[Artifact, Artifact]] = []

    def compare_models(before: Artifact, after: Artifact, *others: Any) -> Comparison:
        compared.append((before, after))
        return found(ratio)

    monkeypatch.setattr(fastest, "compare_models", compare_models)
    told: list[str] = []
    made = quantize_fastest(
        tiny_fp32, "int8", tmp_path / "int8", runtime="onnxruntime", calibration=tiny_calibration, rewriting=Rewriting(tell=told.append)
    )
    plain, rewritten = compared[0]
    assert {each.manifest.precision for each in (plain, rewritten)} == {"int8"}
    assert made.digest == (rewritten if kept else plain).digest != (plain if kept else rewritten).digest
    manifest = open_artifact(tmp_path / "int8").manifest
    assert (manifest.name, len(manifest.calibration)) == ("int8", 2)
    choice = RewriteChoice.model_validate(manifest.recipe[-1].parameters["rewrite"])
    assert (choice.kept, choice.measured) == (kept, found(ratio))
    assert [step.parameters.get("method") for step in manifest.recipe[1:]] == [*(["rewrite"] if kept else []), "int8"]
    assert told[-1].startswith(f"rewritten graph {'kept' if kept else 'not kept'}: {ratio:.3f} of the time")
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


def test_what_cannot_be_rewritten_is_compressed_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_latup.quantize import weights

    monkeypatch.setattr(weights, "SMALLEST", 1)
    source = pointwise_artifact(tmp_path / "source", (16, 16, 16))
    made = quantize_fastest(source, "dynamic-range", tmp_path / "made", runtime="onnxruntime")
    choice = RewriteChoice.model_validate(made.manifest.recipe[-1].parameters["rewrite"])
    assert not choice.kept
    assert "holds nothing that can be rewritten" in choice.why
    assert choice.measured is None
    with pytest.raises(InputError, match="rewrite makes nothing for pytorch"):
        quantize_fastest(source, "dynamic-range", tmp_path / "other", runtime="pytorch")
    with pytest.raises(ArtifactError, match="exists"):
        quantize_fastest(source, "dynamic-range", tmp_path / "made", runtime="onnxruntime")
