"""`edge-latup phantom` writes cases that read back, says where, and refuses what it cannot draw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import tree
from typer.testing import CliRunner, Result

from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.cli import app
from edge_latup.cli.output import Mode, configure
from edge_latup.cli.phantom import parse_size
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.spec import MODALITIES


@pytest.fixture(autouse=True)
def _human_output() -> Iterator[None]:
    """The mode is set once a process; each test starts from the default and leaves it behind."""
    yield
    configure(Mode.HUMAN)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_cases_are_written_where_asked_and_read_back(tmp_path: Path) -> None:
    result = run("phantom", "--out", str(tmp_path / "cases"), "--cases", "2", "--seed", "3", "--shape", "20x18x16")
    assert result.exit_code == 0
    assert f"2 cases in {tmp_path / 'cases'}" in result.stdout
    found = find_cases(tmp_path / "cases")
    assert [files.name for files in found] == ["phantom-0003-0000", "phantom-0003-0001"]
    assert all(read_case(files, MODALITIES).grid.shape == (20, 18, 16) for files in found)


def test_json_lists_the_case_folders(tmp_path: Path) -> None:
    result = run("--json", "phantom", "--out", str(tmp_path), "--cases", "1", "--shape", "16")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"cases": [str(tmp_path / "phantom-0000-0000")]}


def test_quiet_prints_nothing(tmp_path: Path) -> None:
    result = run("--quiet", "phantom", "--out", str(tmp_path), "--cases", "1", "--shape", "16")
    assert result.exit_code == 0
    assert result.output == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [("--shape", value) for value in ("", "x", "20x18", "20x18x16x2", "20,18,16", "-20x18x16", "0x18x16", "2e1", "8", "20x18x15")]
    + [("--cases", "0"), ("--cases", "-1")],
)
def test_what_cannot_be_drawn_is_refused_with_exit_code_2_and_nothing_is_written(tmp_path: Path, option: str, value: str) -> None:
    result = run("phantom", "--out", str(tmp_path / "cases"), f"{option}={value}")
    assert isinstance(result.exception, EdgeLatupError)
    assert result.exception.exit_code == 2
    assert result.exception.hint
    assert not tree(tmp_path)


def test_a_negative_seed_is_bad_usage(tmp_path: Path) -> None:
    assert run("phantom", "--out", str(tmp_path / "cases"), "--seed=-1").exit_code == 2
    assert not tree(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("phantom", "--out", str(tmp_path / "file"), "--cases", "1", "--shape", "16")
    assert isinstance(result.exception, InputError)
    assert str(tmp_path / "file") in result.exception.message


@pytest.mark.parametrize(("text", "sizes"), [("128", (128, 128, 128)), ("240x240x155", (240, 240, 155)), ("16X17x18", (16, 17, 18))])
def test_a_size_is_one_number_or_three(text: str, sizes: tuple[int, int, int]) -> None:
    assert parse_size(text, "--shape") == sizes


def test_a_wrong_size_names_its_option() -> None:
    with pytest.raises(InputError, match="--patch '1x2' is not a size"):
        parse_size("1x2", "--patch")
