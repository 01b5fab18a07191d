"""`edge-latup quantize` prints what it made, alone on stdout, and refuses wrong arguments before anything slow."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command
from support import tree

from edge_latup.artifact import Artifact, open_artifact


def test_the_artifact_is_made_and_its_share_of_the_size_is_told(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    done = cli("quantize", tiny_fp32.folder, "--method", "dynamic-range", "--out", tmp_path / "small")
    assert done.code == 0, done.err
    made = open_artifact(tmp_path / "small").manifest
    assert f"{tmp_path / 'small'}: {made.model_size / 1e6:.2f} MB" in done.out
    assert f"({made.model_size / tiny_fp32.manifest.model_size:.1%} of the FP32 file)" in done.out
    assert "dynamic-range for openvino: weights int8" in done.err


def test_json_is_the_manifest_even_where_a_quantizer_draws_progress_bars(
    cli: Command, tiny_fp32: Artifact, calibration_cases: Path, tmp_path: Path
) -> None:
    done = cli(
        "--json", "quantize", tiny_fp32.folder, "--method", "int8", "--calibration", calibration_cases, "--out", tmp_path / "int8"
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.data["precision"] == "int8"
    assert [case["name"] for case in done.data["calibration"]] == ["phantom-0006-0000", "phantom-0006-0001"]
    assert done.data["recipe"][-1]["parameters"]["calibration_inputs"] == 2


def test_quiet_prints_nothing(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    done = cli("--quiet", "quantize", tiny_fp32.folder, "--method", "dynamic-int8", "--runtime", "onnxruntime", "--out", tmp_path / "small")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert open_artifact(tmp_path / "small").manifest.runtimes == ("onnxruntime",)


WRONG = {
    "unknown method": (("--method", "int4"), "unknown method 'int4'", "choose one of: rewrite, dynamic-range"),
    "unknown runtime": (("--method", "fp16", "--runtime", "tvm"), "unknown runtime 'tvm'", "choose one of: openvino"),
    "method of another runtime": (("--method", "bf16", "--runtime", "onnxruntime"), "bf16 makes nothing for onnxruntime", "openvino"),
    "no calibration": (("--method", "int8"), "int8 needs calibration cases", "--calibration DIR"),
    "needless calibration": (("--method", "fp16", "--calibration", "cases"), "fp16 looks at no cases", "leave out --calibration"),
    "no such cases": (("--method", "int8", "--calibration", "nowhere"), "nowhere does not exist", "give a case folder"),
    "it exists": (("--method", "fp16", "--out", "taken"), "taken exists", "--overwrite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    arguments, message, hint = WRONG[name]
    before = tree(tmp_path)
    done = cli("quantize", tiny_fp32.folder, *(arguments if "--out" in arguments else (*arguments, "--out", "made")))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert hint in done.err.split("hint: ")[1]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "option", [["--runtime", "onnxruntime"], ["--rewrite", "auto"], ["--passes", "no-ops"], ["--no-measure"], ["--trust-batch-norm"]]
)
def test_all_refuses_what_it_would_not_heed(cli: Command, tiny_fp32: Artifact, tmp_path: Path, option: list[str]) -> None:
    done = cli("quantize", tiny_fp32.folder, "--all", *option, "--out", tmp_path / "made")
    assert (done.code, tree(tmp_path)) == (2, {})
    assert f"--all does not take {option[0]}" in done.err


def test_no_such_artifact(cli: Command, tmp_path: Path) -> None:
    done = cli("quantize", tmp_path / "nothing", "--method", "fp16", "--out", tmp_path / "made")
    assert done.code == 2
    assert "is not an artifact" in done.err
    assert "edge-latup export" in done.err.split("hint: ")[1]


def test_one_command_makes_an_artifact_for_every_runtime(
    cli: Command, tiny_fp32: Artifact, calibration_cases: Path, tmp_path: Path
) -> None:
    arguments = ("quantize", tiny_fp32.folder, "--method", "int8", "--runtime", "all", "--calibration", calibration_cases)
    done = cli(*arguments, "--out", tmp_path / "all")
    assert done.code == 0, done.err
    manifests = {runtime: open_artifact(tmp_path / "all" / runtime).manifest for runtime in ("openvino", "onnxruntime", "tensorrt")}
    assert len({manifest.calibration for manifest in manifests.values()}) == 1
    for runtime, manifest in manifests.items():
        assert runtime in done.out
        assert f"{manifest.parity[-1].argmax_agreement:.4%}" in done.out
    assert "0 errors, 15 warnings" in done.out
    assert "reference numerics" in done.out
    again = cli(*arguments, "--out", tmp_path / "all")
    assert again.code == 2
    assert "exists" in again.err


def test_a_failure_among_them_is_told_and_sets_the_exit_code(
    cli: Command, tiny_fp32: Artifact, calibration_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_latup.quantize.methods.installed", lambda package: package != "nncf")
    done = cli(
        "--json", "quantize", tiny_fp32.folder, "--method", "int8", "--runtime", "all", "--calibration", calibration_cases,
        "--out", tmp_path / "all",
    )  # fmt: skip
    assert done.code == 3
    assert "int8 for openvino needs nncf" in done.err
    assert [entry["manifest"] is not None for entry in done.data] == [False, True, True]
    assert "needs nncf" in done.data[0]["error"]["message"]
    assert {finding["severity"] for finding in done.data[2]["findings"]} == {"warning"}
