"""The passphrase of a private key: out of a file, or asked for on the terminal. Never from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from edge_latup.errors import InputError


def the_passphrase(path: Path | None, *, twice: bool, remedy: str) -> bytes:
    """The first line of `path`, or where none is named, what is typed, without being shown.

    Args:
        path: of a file that holds nothing else.
        twice: whether it is typed again, to catch a slip.
        remedy: what to do where there is no terminal.

    Raises:
        InputError: the file does not hold one line, or there is no terminal.
    """
    from edge_latup.bundle.keys import read_passphrase

    if path is not None:
        return read_passphrase(path)
    if not sys.stdin.isatty():
        raise InputError("there is no terminal to ask for a passphrase", remedy)
    text: str = typer.prompt("Passphrase for the private key", hide_input=True, confirmation_prompt=twice, err=True)
    return text.encode()
