"""Only what stands between the marks of a document is rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_latup.bench.document_block import marks, write_block
from edge_latup.errors import InputError

BEGIN, END = marks("figures")


def test_only_the_marked_block_is_rewritten_and_twice_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text(f"before\n{BEGIN}\nnot yet measured\n{END}\nafter\n")
    for _ in range(2):
        write_block(path, "figures", "the table\n")
        assert path.read_text() == f"before\n{BEGIN}\nthe table\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", f"{BEGIN}", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_document_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "document.md"
    path.write_text(text)
    with pytest.raises(InputError, match="does not hold"):
        write_block(path, "figures", "the table")
    assert path.read_text() == text
    with pytest.raises(InputError, match="cannot be read"):
        write_block(tmp_path / "nowhere.md", "figures", "the table")
