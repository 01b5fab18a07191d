"""Records: files are replaced whole or not at all, and a wrong key is named with the one that was meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import tree

from edge_latup.errors import SpecError
from edge_latup.records import Record, read_record, replacing, write_record, write_text


class Inner(Record):
    overlap: float = 0.25


class Recipe(Record):
    name: str
    threads: int = 1
    inner: Inner = Inner()


def test_a_record_reads_back_as_written(tmp_path: Path) -> None:
    recipe = Recipe(name="größe", threads=3, inner=Inner(overlap=0.5))
    write_record(recipe, tmp_path / "recipe.json")
    assert read_record(Recipe, tmp_path / "recipe.json") == recipe
    assert (tmp_path / "recipe.json").read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"name": "a", "thread": 2}', ["unknown key 'thread'", "did you mean 'threads'"]),
        ('{"name": "a", "colour": 2}', ["unknown key 'colour'", "known keys: name, threads, inner"]),
        ('{"name": "a", "inner": {"overlop": 0.5}}', ["inner", "unknown key 'overlop'", "did you mean 'overlap'"]),
        ('{"threads": 2}', ["name", "required"]),
        ('{"name": "a", "threads": "many"}', ["threads", "integer"]),
        ("[]", ["top level"]),
        ("", ["top level"]),
        ("{not json", ["top level"]),
    ],
)
def test_a_wrong_record_is_refused_by_file_and_key(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=f"{path} is not a valid Recipe") as caught:
        read_record(Recipe, path)
    for part in parts:
        assert part in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"recipe\.json is not a valid Recipe: it is not UTF-8 text"):
        read_record(Recipe, tmp_path / "recipe.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"{tmp_path / 'gone.json'} does not exist") as caught:
        read_record(Recipe, tmp_path / "gone.json")
    assert "Recipe" in caught.value.hint


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(name="a").name = "b"  # type: ignore[misc]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older", encoding="utf-8")
    with replacing(path) as temporary:
        temporary.write_text("newer", encoding="utf-8")
        assert temporary.parent == tmp_path
        assert path.read_text(encoding="utf-8") == "older"
    assert path.read_text(encoding="utf-8") == "newer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("older", [True, False])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException], older: bool) -> None:
    path = tmp_path / "a.txt"
    if older:
        path.write_text("older", encoding="utf-8")
    before = tree(tmp_path)

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        write()
    assert tree(tmp_path) == before


def test_a_temporary_file_is_hidden_and_keeps_the_ending_its_writer_needs(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.nii.gz", ".nii.gz") as temporary:
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".part.nii.gz")


def test_a_written_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    """A temporary file is made for its owner alone; a shared folder of results needs the usual permissions."""
    mask = os.umask(0o027)
    try:
        write_text("a", tmp_path / "a.txt")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("place", ["missing/a.txt", "file/a.txt"])
def test_a_folder_that_cannot_be_written_raises_and_leaves_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    with pytest.raises(OSError, match=r"No such file or directory|Not a directory"):
        write_text("a", tmp_path / place)
    assert tree(tmp_path) == before
