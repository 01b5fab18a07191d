"""`edge-latup inspect` prints what every layer costs, and what must be said of the published figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import tree
from tiny_network import tiny_spec, write_checkpoint
from typer.testing import CliRunner, Result

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


def test_every_layer_is_listed_and_the_sums_are_told(checkpoint: Path) -> None:
    result = run("inspect", checkpoint)
    assert result.exit_code == 0, result.output
    out = result.stdout
    assert "tiny (PyTorch modules), input 1x3x16x16x16" in out
    row = next(line for line in out.splitlines() if "decoder1.conv1 " in line)
    assert [cell.strip() for cell in row.strip("│┃|").split("│")] == [
        "decoder1.conv1", "Conv3d", "1x8x16x16x16", "3,464", "14,155,776", "0.1",
    ]  # fmt: skip
    assert "parameters: 192,708" in out
    assert "convolution MAC: 98,369,536 = 0.20 GFLOP (2 FLOP a MAC); with the dense layers 98,370,336" in out
    assert "activations in FP32: 4 MiB written in all, 1 MiB alive at once" in out
    assert "published" not in out


def test_json_has_the_same_and_more(checkpoint: Path) -> None:
    data = json.loads(run("--json", "inspect", checkpoint, "--size", "32x16x16").stdout)
    assert (data["parameters"], data["input_shape"], data["remarks"]) == (192_708, [1, 3, 32, 16, 16], [])
    assert data["convolution_macs"] == 2 * 98_369_536
    assert sum(layer["parameters"] for layer in data["layers"]) == data["parameters"]
    assert sum(layer["macs"] for layer in data["layers"]) == data["macs"]


def test_the_full_network_is_told_beside_its_published_figures(tmp_path: Path) -> None:
    result = run("inspect", write_checkpoint(tmp_path, tiny_spec(128, width=32)))
    assert result.exit_code == 0, result.output
    assert "parameters: 3,069,060" in result.stdout
    assert "convolution MAC: 788,730,478,592 = 1,577.46 GFLOP" in result.stdout
    assert "published: 15.79 GFLOPs, which is low by a factor of 100" in result.stdout


def test_quiet_prints_nothing_and_nothing_is_written(checkpoint: Path) -> None:
    before = tree(checkpoint)
    result = run("--quiet", "inspect", checkpoint)
    assert (result.exit_code, result.output) == (0, "")
    assert tree(checkpoint) == before


@pytest.mark.parametrize(("size", "message"), [("12", "12 is not a multiple of 8"), ("1x2", "--size '1x2' is not a size")])
def test_a_size_the_network_does_not_take_is_refused(checkpoint: Path, size: str, message: str) -> None:
    result = run("inspect", checkpoint, "--size", size)
    assert isinstance(result.exception, EdgeLatupError)
    assert message in result.exception.message
    assert result.exception.exit_code == 2


def test_what_is_neither_artifact_nor_checkpoint_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        result = run("inspect", path)
        assert isinstance(result.exception, EdgeLatupError)
        assert str(path) in result.exception.message
        assert result.exception.exit_code == 2
    missing = run("inspect").exception
    assert isinstance(missing, EdgeLatupError)
    assert missing.message == "no model given"
