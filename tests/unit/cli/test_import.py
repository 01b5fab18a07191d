"""`edge-latup import`: an artifact or a refusal, and --describe as the way to a spec."""

from __future__ import annotations

from pathlib import Path

import foreign_models
from command import Command
from support import tree

from edge_latup.artifact import open_artifact


def test_from_describe_to_artifact(cli: Command, tmp_path: Path) -> None:
    model = foreign_models.channels_last(tmp_path / "model.onnx")
    described = cli("import", model, "--describe")
    assert (described.code, described.err) == (0, "")
    (tmp_path / "spec.toml").write_text(described.out, encoding="utf-8")
    done = cli("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "artifact")
    assert done.code == 0
    assert "input 1x3x12x16x20" in done.out
    assert done.out.count("parity original onnxruntime fp32") == 2
    assert "segment a labelled case and compare" in done.err, "what no file tells is said"
    assert open_artifact(tmp_path / "artifact").manifest.spec.name == "model"


def test_json_is_the_manifest_or_the_description(cli: Command, tmp_path: Path) -> None:
    model = foreign_models.channels_last(tmp_path / "model.onnx")
    described = cli("--json", "import", model, "--describe").data
    assert described["outputs"][0]["name"] == "probabilities"
    (tmp_path / "spec.toml").write_text(described["skeleton"], encoding="utf-8")
    manifest = cli("--json", "import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "artifact").data
    assert manifest["recipe"][0]["operation"] == "import"


def test_without_spec_or_out_the_way_is_shown(cli: Command, tmp_path: Path) -> None:
    done = cli("import", tmp_path / "model.onnx")
    assert done.code == 2
    assert "--describe > spec.toml" in done.err


def test_describe_takes_nothing_else(cli: Command, tmp_path: Path) -> None:
    model = foreign_models.channels_last(tmp_path / "model.onnx")
    before = tree(tmp_path)
    assert cli("import", model, "--describe", "--out", tmp_path / "artifact").code == 2
    assert cli("import", model, model, "--describe").code == 2
    assert tree(tmp_path) == before


def test_a_refusal_names_the_line(cli: Command, tmp_path: Path) -> None:
    model = foreign_models.channels_last(tmp_path / "model.onnx")
    text = cli("import", model, "--describe").out
    (tmp_path / "spec.toml").write_text(text.replace('layout = "NDHWC"', 'layout = "NCDHW"'), encoding="utf-8")
    done = cli("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "artifact")
    assert (done.code, done.out) == (2, "")
    assert "axis 1 (channels) is 12, the spec says 3" in done.err
    assert 'write layout = "NDHWC" instead of layout = "NCDHW"' in done.err.replace("\n", " ")
    assert not (tmp_path / "artifact").exists()
