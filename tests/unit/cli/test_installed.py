"""The words of an installed bundle: self-test and status heed --json and --quiet, and drop no option unread."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_latup.bundle import installed as installation
from edge_latup.cli import installed
from edge_latup.cli.output import Mode, configure


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which self-tests ran."""
    found: list[str] = []
    result = SimpleNamespace(chosen="artifacts/int8", finished=None, artifacts=(), model_dump=lambda mode: {"chosen": "artifacts/int8"})

    def test(self: Any, tell: Any) -> Any:
        found.append("self-test")
        return result

    monkeypatch.setattr(installation.Installation, "test", test)
    monkeypatch.setattr(installation.Installation, "stored", lambda self: result)
    monkeypatch.setattr(installation.Installation, "outdated", lambda self: None)
    monkeypatch.setattr(installed, "_show", lambda result: None)
    monkeypatch.setattr(installed, "_told", lambda result: installed.output.result(result.model_dump("json"), "human") or 0)
    yield found
    configure(Mode.HUMAN)


def run(root: Path, *words: str) -> int:
    return installed.main(["--root", str(root), "--version", "b-1-abc", "run", *words])


def test_temporary_files_stay_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "state").mkdir()
    seen: list[str] = []
    monkeypatch.setattr(installed, "_told", lambda result: seen.extend((tempfile.gettempdir(), os.environ["TMPDIR"])) or 0)
    assert run(tmp_path, "status") == 0
    assert seen == [str(tmp_path / "state" / "tmp")] * 2
    assert (tempfile.tempdir, os.environ["TMPDIR"]) == (None, "/tmp")


@pytest.mark.parametrize("words", [("self-test", "--json"), ("--json", "self-test"), ("status", "--json"), ("--json", "status")])
def test_json_may_stand_before_or_behind(words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *words) == 0
    assert json.loads(capsys.readouterr().out) == {"chosen": "artifacts/int8"}


def test_help_runs_nothing(tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "self-test", "--help") == 0
    assert (ran, "golden case" in capsys.readouterr().out) == ([], True)


@pytest.mark.parametrize("words", [("self-test", "--threads", "4"), ("status", "now")])
def test_what_is_not_heeded_is_refused(words: tuple[str, ...], tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *words) == 2
    assert (ran, f"{words[0]} takes no {words[1]}" in capsys.readouterr().err) == ([], True)
