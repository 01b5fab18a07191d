"""`edge-latup export` makes an artifact and says how well it was proven."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import tree
from tiny_network import write_checkpoint
from typer.testing import CliRunner, Result

from edge_latup.artifact import open_artifact
from edge_latup.cli import app
from edge_latup.cli.output import Mode, configure
from edge_latup.errors import EdgeLatupError


@pytest.fixture(autouse=True)
def _human_output() -> Iterator[None]:
    """The mode is set once a process; each test leaves the default behind."""
    yield
    configure(Mode.HUMAN)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(folder: Path, *arguments: object) -> str:
    before = tree(folder)
    result = run("export", *arguments)
    assert isinstance(result.exception, EdgeLatupError)
    assert result.exception.exit_code == 2
    assert result.exception.hint
    assert tree(folder) == before
    return result.exception.message


def test_an_artifact_is_made_and_its_parity_told(checkpoint: Path, tmp_path: Path) -> None:
    result = run("export", checkpoint, "--out", tmp_path / "fp32", "--size", "24x16x16", "--dynamic")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'fp32'}: 0.")
    assert lines[0].endswith(" MB, input 1x3xfreexfreexfree")
    assert lines[1].startswith("parity pytorch fp32 / onnxruntime fp32: max |difference| ")
    assert lines[2].startswith("parity pytorch fp32 / openvino fp32: max |difference| ")
    manifest = open_artifact(tmp_path / "fp32").manifest
    assert manifest.spec.spatial.size == (24, 16, 16)
    assert [parity.input_shape for parity in manifest.parity] == [(1, 3, 24, 16, 16)] * 2


def test_the_reference_is_made_and_told_as_json(checkpoint: Path, tmp_path: Path) -> None:
    result = run("--json", "export", checkpoint, "--out", tmp_path / "reference", "--reference")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == open_artifact(tmp_path / "reference").manifest.model_dump(mode="json")


def test_quiet_prints_nothing_and_overwriting_is_possible(checkpoint: Path, tmp_path: Path) -> None:
    for options in ([], ["--overwrite"]):
        result = run("--quiet", "export", checkpoint, "--out", tmp_path / "reference", "--reference", *options)
        assert (result.exit_code, result.output) == (0, "")


def test_an_existing_folder_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "out exists" in refused(tmp_path, checkpoint, "--out", tmp_path / "out")
    assert "not an artifact" in refused(tmp_path, checkpoint, "--out", tmp_path / "out", "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "12"], "12 is not a multiple of 8"),
        (["--size", "16x16"], "--size '16x16' is not a size"),
        (["--size", "0"], "--size '0' is not a size"),
        (["--size", "8", "--dynamic"], "a free axis holds 16 to 512 voxels"),
        (["--reference", "--size", "16"], "--reference takes no --size, --dynamic and --opset"),
        (["--reference", "--opset", "17"], "--reference takes no --size, --dynamic and --opset"),
        (["--reference", "--dynamic"], "--reference takes no --size, --dynamic and --opset"),
    ],
)
def test_what_cannot_be_exported_is_refused(checkpoint: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in refused(tmp_path, checkpoint, "--out", tmp_path / "out", *arguments)


@pytest.mark.parametrize("options", [[], ["--reference"]])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, options: list[str]) -> None:
    assert "is not a checkpoint" in refused(tmp_path, tmp_path / "nowhere", "--out", tmp_path / "out", *options)


@pytest.mark.parametrize("arguments", [[], ["checkpoint"], ["--out", "x"], ["checkpoint", "--out", "x", "--nonsense"]])
def test_bad_usage_is_refused(arguments: list[str]) -> None:
    assert run("export", *arguments).exit_code == 2
