"""`edge-latup quantize --ranges`, `--compare-ranges` and `--operators`: what is chosen is recorded, what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command
from support import tree

from edge_latup.artifact import Artifact, open_artifact


@pytest.mark.parametrize(
    ("asked", "recorded"), [((), "mean min-max"), (("--ranges", "percentile-99.999"), "percentile 99.999"), (("--ranges", "kl"), "kl")]
)
def test_the_choice_is_in_the_recipe(
    cli: Command, tiny_fp32: Artifact, calibration_cases: Path, tmp_path: Path, asked: tuple[str, ...], recorded: str
) -> None:
    done = cli("quantize", tiny_fp32.folder, "--method", "int8", "--calibration", calibration_cases, "--out", tmp_path / "int8", *asked)
    assert done.code == 0, done.err
    assert open_artifact(tmp_path / "int8").manifest.recipe[-1].parameters["ranges"] == recorded


def test_every_runtime_is_given_the_same_choice(cli: Command, tiny_fp32: Artifact, calibration_cases: Path, tmp_path: Path) -> None:
    done = cli(
        "quantize", tiny_fp32.folder, "--method", "int8", "--runtime", "all", "--calibration", calibration_cases, "--ranges", "min-max",
        "--out", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    for runtime in ("openvino", "onnxruntime", "tensorrt"):
        assert open_artifact(tmp_path / runtime).manifest.recipe[-1].parameters["ranges"] == "min-max"


def test_the_ways_are_compared_in_one_table(cli: Command, tiny_fp32: Artifact, calibration_cases: Path, tmp_path: Path) -> None:
    done = cli(
        "quantize", tiny_fp32.folder, "--method", "int8", "--runtime", "onnxruntime", "--calibration", calibration_cases,
        "--compare-ranges", "--out", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "calibration data, not an evaluation" in done.out
    for name in ("mean-min-max", "min-max", "percentile-99.999", "kl"):
        assert name in done.out
        assert open_artifact(tmp_path / name).manifest.model_size > 0
    assert "least output error on these crops: --ranges " in done.out
    assert "gate" in done.err


WRONG = {
    "unknown": (("--method", "int8", "--ranges", "99.9"), "ranges '99.9' are not known", "mean-min-max, min-max, percentile-99.999, kl"),
    "nothing to find": (("--method", "fp16", "--ranges", "kl"), "fp16 has no ranges of activations to find", "--method int8"),
    "nothing to compare": (("--method", "fp16", "--compare-ranges"), "fp16 has no ranges of activations to compare", "--method int8"),
    "compared and chosen": (("--method", "int8", "--compare-ranges", "--ranges", "kl"), "--compare-ranges makes", "leave out --ranges"),
    "compared for all": (("--method", "int8", "--compare-ranges", "--runtime", "all"), "--compare-ranges makes", "name the --runtime"),
    "operators elsewhere": (("--method", "int8", "--operators", "all"), "only int8 for ONNX Runtime chooses", "--runtime onnxruntime"),
    "unknown operators": (
        ("--method", "int8", "--runtime", "onnxruntime", "--operators", "Conv"), "operators 'Conv' are not known", "conv, conv+moves",
    ),
    "both measured": (
        ("--method", "int8", "--runtime", "onnxruntime", "--operators", "auto", "--rewrite", "auto"), "measured one at a time", "first",
    ),
    "every method": (("--all", "--ranges", "kl"), "--all does not take --ranges", "leave it out"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_refused_before_anything_is_read(
    cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message, hint = WRONG[name]
    before = tree(tmp_path)
    done = cli("quantize", tiny_fp32.folder, *arguments, "--calibration", "nowhere", "--out", "made")
    if "fp16" in arguments:
        done = cli("quantize", tiny_fp32.folder, *arguments, "--out", "made")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert hint in " ".join(done.err.split("hint: ")[1].split())
    assert tree(tmp_path) == before
