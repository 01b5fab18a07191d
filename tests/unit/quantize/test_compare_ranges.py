"""One artifact for each way to find ranges, from one look at the inputs, and figures that can be checked by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tree

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.errors import ArtifactError
from edge_latup.manifest import RuntimeName
from edge_latup.metrics.overlap import dice_by_region
from edge_latup.quantize import prepared as module
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.compare_ranges import FILE_NAME, MOST_CROPS, RangeComparison, compare_ranges
from edge_latup.quantize.estimators import ESTIMATORS, MIN_MAX, slug
from edge_latup.records import read_record
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import labels_of


def check_agreement(found: RangeComparison, folder: Path, fp32: Artifact, calibration: Calibration) -> None:
    """Dice with FP32 on the calibration crops, counted again here."""
    row = found.rows[0]
    labels = []
    for artifact in (fp32, open_artifact(folder / row.folder)):
        with open_session(artifact, "openvino") as session:
            labels.append([labels_of(artifact.manifest.spec, session.infer(crop)[0]) for crop in calibration.inputs])
    expected = [dice_by_region(*pair) for pair in zip(*labels, strict=True)]
    for region, value in row.agreement.items():
        assert value == pytest.approx(np.mean([one[region] for one in expected]), abs=1e-6)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "tensorrt"])
def test_every_way_is_made_from_one_look_and_the_least_error_is_named(
    runtime: RuntimeName, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[str] = Counter()

    def counting(name: str) -> None:
        real = getattr(module, name)

        def look(*arguments: Any, **options: Any) -> Any:
            looks[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, look)

    counting("look")
    counting("find_histograms")
    found = compare_ranges(tiny_fp32, tmp_path / "compared", runtime=runtime, calibration=tiny_calibration)
    assert looks == {"look": 1, "find_histograms": 1}
    assert found == read_record(RangeComparison, tmp_path / "compared" / FILE_NAME)
    assert [row.estimator for row in found.rows] == list(ESTIMATORS)
    assert (found.calibration_inputs, found.crops, found.basis) == (4, min(4, MOST_CROPS), "calibration data, not an evaluation")
    assert found.chosen == min(found.rows, key=lambda row: row.relative_l2).estimator
    for row in found.rows:
        made = open_artifact(tmp_path / "compared" / slug(row.estimator))
        assert made.manifest.recipe[-1].parameters["ranges"] == row.estimator
        assert (made.manifest.model_size, made.manifest.runtimes) == (row.model_bytes, (runtime,))
        errors = [error.relative for error in row.tensors]
        assert (row.median_error, row.worst.relative) == (pytest.approx(float(np.median(errors))), max(errors))
        assert set(row.agreement) == {"WT", "TC", "ET"}
        assert (row.clipped == 0) == (row.estimator == MIN_MAX)
    if runtime == "openvino":
        check_agreement(found, tmp_path / "compared", tiny_fp32, tiny_calibration)


def test_nothing_is_made_where_a_folder_is_taken(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    (tmp_path / "kl").mkdir()
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="kl exists"):
        compare_ranges(tiny_fp32, tmp_path, runtime="openvino", calibration=tiny_calibration)
    assert tree(tmp_path) == before
    with pytest.raises(ArtifactError, match="is an artifact"):
        compare_ranges(tiny_fp32, tiny_fp32.folder, runtime="openvino", calibration=tiny_calibration)
