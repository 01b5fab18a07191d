"""How every command ends: an error of ours is a message, a hint and its exit code; anything else is our bug, traceback kept."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from command import Command
from rich.console import Console

from edge_latup.cli import ROAD
from edge_latup.cli.output import Mode, Output
from edge_latup.errors import (
    ArtifactError,
    CaseError,
    EdgeLatupError,
    GateRefusedError,
    InputError,
    MissingDependencyError,
    SpecError,
    VerificationError,
)

CODES = {
    EdgeLatupError: 1, InputError: 2, CaseError: 2, SpecError: 2, ArtifactError: 2, MissingDependencyError: 3, GateRefusedError: 4,
    VerificationError: 5,
}  # fmt: skip


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let `edge-latup doctor` end with an error."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("edge_latup.targets.diagnosis.diagnose", fail)


@pytest.mark.parametrize(("kind", "code"), CODES.items())
@pytest.mark.parametrize("mode", [(), ("--json",), ("--quiet",)])
def test_an_error_of_ours_has_its_exit_code_and_goes_to_stderr(
    cli: Command, monkeypatch: pytest.MonkeyPatch, kind: type[EdgeLatupError], code: int, mode: tuple[str, ...]
) -> None:
    raising(monkeypatch, kind("it [is] wrong: a:b:c", "mend it"))
    done = cli(*mode, "doctor")
    assert (done.code, done.out) == (code, "")
    assert done.err == "error: it [is] wrong: a:b:c\nhint: mend it\n"


def test_an_error_without_a_hint_has_none(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, InputError("wrong"))
    assert cli("doctor").err == "error: wrong\n"


def test_a_long_message_is_not_broken(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "a/long/path " * 40
    raising(monkeypatch, InputError(message))
    assert cli("doctor").err == f"error: {message}\n"


def test_anything_else_is_a_bug_with_its_traceback(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("boom"))
    done = cli("doctor")
    assert (done.code, done.out) == (1, "")
    assert "Traceback" in done.err
    assert "ZeroDivisionError: boom" in done.err
    assert done.err.endswith("this is a bug in edge-latup; please report it with the traceback above\n")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_file_system_refuses_is_no_bug(cli: Command, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    raising(monkeypatch, OSError(code, os.strerror(code), "/some/folder"))
    done = cli("doctor")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: /some/folder: {os.strerror(code)}\nhint: ")
    assert "Traceback" not in done.err


def test_another_error_of_the_system_is_a_bug(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, OSError(errno.EBADF, "bad"))
    assert "this is a bug in edge-latup" in cli("doctor").err


def test_a_folder_in_the_place_of_a_record_is_told(cli: Command, tmp_path: Path) -> None:
    done = cli("gate", tmp_path, "--rule", tmp_path)
    assert done.code == 2
    assert f"{tmp_path} cannot be read" in done.err
    assert "Traceback" not in done.err


def test_a_closed_pipe_is_no_bug(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, BrokenPipeError())
    assert (cli("doctor").code, cli("doctor").err) == (1, "")


@pytest.mark.parametrize("arguments", [("no-such-command",), ("segment",), ("doctor", "--no-such-option")])
def test_bad_usage_ends_with_2(cli: Command, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [("targets", "show", "tesla-t4", "--json"), ("targets", "--json", "show", "tesla-t4")])
def test_options_of_the_application_may_stand_behind_the_command(cli: Command, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).data == cli("--json", "targets", "show", "tesla-t4").data
    assert cli("targets", "show", "tesla-t4", "--quiet").out == ""


def test_behind_two_dashes_all_is_data(cli: Command) -> None:
    done = cli("targets", "show", "--", "--json")
    assert (done.code, done.out) == (2, "")
    assert "there is no target '--json'" in done.err


def test_the_help_lists_commands_in_the_order_of_the_road(cli: Command) -> None:
    shown = [line.split()[1] for line in cli("--help").out.splitlines() if line.startswith("│ ") and line[2].islower()]
    assert shown == list(ROAD)


def test_without_arguments_help_is_shown(cli: Command) -> None:
    done = cli()
    assert "Usage: edge-latup" in done.out + done.err
    assert "segment" in done.out + done.err


@pytest.mark.parametrize(
    ("mode", "out", "err"),
    [
        (Mode.HUMAN, "a line\nshown\n", "a note\nwarning: careful\n"),
        (Mode.JSON, '{"a": [1, "x:y:z"]}\n', "a note\nwarning: careful\n"),
        (Mode.QUIET, "", "warning: careful\n"),
    ],
)
def test_each_mode_says_what_it_should(mode: Mode, out: str, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(mode)
    output.line("a line")
    output.note("a note")
    output.warning("careful")
    output.result({"a": [1, "x:y:z"]}, "shown")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (out, err)


def test_a_table_shows_its_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(Mode.HUMAN)
    output.table("[t] :cat:", ["[c] :cat:", "n"], [["[red]x :cat:", "1"]])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[t] :cat:", "[c] :cat:", "[red]x :cat:"))
    for mode in (Mode.JSON, Mode.QUIET):
        Output(mode).table("t", ["c"], [["x"]])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("width", "side_by_side"), [(80, True), (30, False)])
def test_no_word_is_broken_where_the_terminal_is_narrow(width: int, side_by_side: bool) -> None:
    shown, output = io.StringIO(), Output(Mode.HUMAN)
    output.stdout = Console(file=shown, width=width, force_terminal=True, color_system=None)
    output.table("targets", ["target", "memory"], [["jetson-agx-orin-64gb", "64"], ["not-a-target-with-a-short-name", "8"]])
    assert ("┏" in shown.getvalue()) is side_by_side
    for cell in ("jetson-agx-orin-64gb", "not-a-target-with-a-short-name"):
        assert cell in shown.getvalue()


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Output(Mode.HUMAN).progress("cases", 100) as ticker:
        for done in range(1, 101):
            now[0] += 1
            ticker.update(done, f"case {done}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cases 10/100 case 10"
    assert lines[-1] == "cases 100/100 case 100"
    assert len(lines) == 10
    with Output(Mode.QUIET).progress("cases", None) as ticker:
        now[0] += 100
        ticker.update(1)
    assert capsys.readouterr().err == ""
