"""Work in a fresh process: its own errors come back as they were raised, its crashes as what is known of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_latup.errors import EdgeLatupError, InputError, MissingDependencyError
from edge_latup.runtimes.fresh import run_fresh, tell_failure

WORK = """
import os, signal, sys
from edge_latup.errors import InputError, MissingDependencyError
from edge_latup.runtimes.fresh import tell_failure

def work(how):
    if how == "input":
        raise InputError("the file is wrong", "use another")
    if how == "missing":
        raise MissingDependencyError("it is not here", "install it")
    if how == "bug":
        raise RuntimeError("a bug")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    open(how, "w").write("done")

def main(arguments):
    print("noise on stdout")
    return tell_failure(lambda: work(arguments[0]))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of such work, on the path of fresh interpreters."""
    (tmp_path / "fresh_work.py").write_text(WORK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "fresh_work"


def test_it_runs_elsewhere_and_says_nothing(module: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_fresh(module, [str(tmp_path / "done")], "the work")
    assert (tmp_path / "done").read_text(encoding="utf-8") == "done"
    assert module not in sys.modules
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("how", "kind", "message"), [
    ("input", InputError, "the work: the file is wrong"), ("missing", MissingDependencyError, "the work: it is not here"),
])  # fmt: skip
def test_an_error_of_ours_keeps_its_kind_and_its_hint(module: str, how: str, kind: type[EdgeLatupError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        run_fresh(module, [how], "the work")
    assert caught.value.hint in ("use another", "install it")


def test_a_crash_is_told_with_its_last_words(module: str) -> None:
    with pytest.raises(EdgeLatupError, match="the process for the work ended with code 1") as caught:
        run_fresh(module, ["bug"], "the work")
    assert "RuntimeError: a bug" in caught.value.hint
    with pytest.raises(EdgeLatupError, match=r"was killed \(SIGKILL\): .* out of memory") as caught:
        run_fresh(module, ["killed"], "the work")
    assert caught.value.hint == "close other programs"


def test_the_exit_code_is_that_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise InputError("wrong", "right")

    assert tell_failure(fail) == InputError.exit_code
    assert capsys.readouterr().err.strip() == '{"message": "wrong", "hint": "right"}'
    assert tell_failure(lambda: None) == 0
