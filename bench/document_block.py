"""The block of a document that a command rewrites: what stands between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_latup.errors import InputError
from edge_latup.records import write_text


def marks(name: str) -> tuple[str, str]:
    """The lines that begin and end the block of a name."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows)]


def write_block(document: Path, name: str, text: str) -> None:
    """Replace what stands between the two marks of a name.

    Raises:
        InputError: there is no such document, or it does not hold both marks once, in order.
    """
    begin_mark, end_mark = marks(name)
    try:
        content = document.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{document} cannot be read: {error.strerror}", "name the document that holds the table") from error
    before, begin, rest = content.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end or begin_mark in rest or end_mark in after:
        raise InputError(f"{document} does not hold {begin_mark} and {end_mark} once", "put both where the table belongs")
    write_text(f"{before}{begin_mark}\n{text.strip()}\n{end_mark}{after}", document)
