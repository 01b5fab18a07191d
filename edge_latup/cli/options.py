"""Options and small parsers that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from edge_latup.errors import CaseError, InputError

if TYPE_CHECKING:
    from edge_latup.cases.layout import CaseFiles
    from edge_latup.manifest import RuntimeName

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing artifact.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 uses every core this process may use.")]
OutArtifact = Annotated[Path, typer.Option(help="Artifact folder to make.")]


def parse_size(text: str, option: str) -> tuple[int, int, int]:
    """Three sizes of a text such as "128" or "240x240x155".

    Raises:
        InputError: it is not one number or three.
    """
    parts = text.lower().split("x")
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{option} {text!r} is not a size", f"write one number or three, such as {option} 128 or {option} 240x240x155")
    sizes = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
    return sizes[0], sizes[1], sizes[2]


def parse_runtime(text: str) -> RuntimeName:
    """A runtime's name.

    Raises:
        InputError: there is no such runtime.
    """
    from edge_latup.manifest import RuntimeName

    if text not in get_args(RuntimeName):
        raise InputError(f"unknown runtime {text!r}", f"choose one of: {', '.join(get_args(RuntimeName))}")
    return cast(RuntimeName, text)


def one_case(path: Path, otherwise: str = "") -> CaseFiles:
    """The only case at `path`; `otherwise` ends the hint for several.

    Raises:
        CaseError: there is none, or there are several.
    """
    from edge_latup.cases.layout import find_cases

    found = find_cases(path)
    if len(found) > 1:
        raise CaseError(f"{path} holds {len(found)} cases, one is asked for", f"name one of them, such as {found[0].path}{otherwise}")
    return found[0]
