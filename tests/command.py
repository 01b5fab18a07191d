"""Run `edge-latup` as its entry point does, in this process."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from edge_latup.cli import main


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON value that stdout is."""
        return json.loads(self.out)


class Command:
    """`edge-latup ARGUMENTS`, with errors mapped to exit codes and both streams kept apart."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Done:
        """Run to the end."""
        self._monkeypatch.setattr(sys, "argv", ["edge-latup", *map(str, arguments)])
        self._capsys.readouterr()
        try:
            main()
        except SystemExit as exit:  # noqa: A001
            code = exit.code if isinstance(exit.code, int) else 1
        else:
            code = 0
        captured = self._capsys.readouterr()
        return Done(code=code, out=captured.out, err=captured.err)
