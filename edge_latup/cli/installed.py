"""What the launchers of an installed bundle start: self-test, segment, status, or any command of edge-latup."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.cli.output import Mode, configure, output
from edge_latup.errors import EdgeLatupError, InputError, VerificationError

if TYPE_CHECKING:
    from edge_latup.bundle.installed import Installation
    from edge_latup.bundle.selftest import SelfTest


MODES: Final = {"--quiet": Mode.QUIET, "--json": Mode.JSON}
HELP: Final = {
    "self-test": "run the golden case through the installed models, now",
    "status": "the latest self-test, and whether it still holds",
}


def main(arguments: Sequence[str]) -> int:
    """Run one verb of an installation and return its exit code. Everything after the verb is the verb's own."""
    from edge_latup.bundle.installed import Installation

    parser = argparse.ArgumentParser(prog="edge-latup")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("verb", choices=["self-test", "status", "segment", "run"])
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    asked = parser.parse_args(arguments)
    here = Installation(root=asked.root.absolute(), version=asked.version)
    try:
        with _kept_inside(here.state):
            return _run(asked, here)
    except EdgeLatupError as error:
        output.error(error)
        return error.exit_code


def _run(asked: argparse.Namespace, here: Installation) -> int:
    if asked.verb == "run":
        words = [word for word in asked.rest if word not in MODES]
        return _verb(words[0], here, _own(words, asked.rest)) if words[:1] in (["self-test"], ["status"]) else _edge_latup(asked.rest)
    return _verb(asked.verb, here, asked.rest)


@contextlib.contextmanager
def _kept_inside(state: Path) -> Iterator[None]:
    """Have temporary files, such as ONNX Runtime's optimised graph, made below --root, where it can be written; of children too."""
    folder, before, default = state / "tmp", os.environ.get("TMPDIR"), tempfile.tempdir
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = default
        if before is not None:
            os.environ["TMPDIR"] = before
        else:
            os.environ.pop("TMPDIR", None)


def _own(words: Sequence[str], given: Sequence[str]) -> list[str]:
    """Options behind self-test or status, once --json and --quiet, wherever they stood, are heeded."""
    for mode in (mode for word, mode in MODES.items() if word in given):
        configure(mode)
    return list(words[1:])


def _verb(verb: str, here: Installation, rest: Sequence[str]) -> int:
    if verb != "segment" and rest:
        if {"--help", "-h"} & set(rest):
            output.line(f"{verb} [--json] [--quiet]: {HELP[verb]}")
            return 0
        raise InputError(f"{verb} takes no {rest[0]}", f"edge-latup {verb} [--json] [--quiet]")
    if verb == "self-test":
        return _told(here.test(tell=output.note))
    if verb == "status":
        output.line(f"{here.version} in {here.root}: {here.outdated() or 'self-test holds'}")
        return _told(here.stored())
    return _segment(here, list(rest))


def show_status(root: Path) -> None:
    """`edge-latup doctor --bundle ROOT`.

    Raises:
        InputError: no bundle is installed there.
        VerificationError: the launcher would not segment: no artifact passed the latest self-test.
    """
    from edge_latup.bundle.installed import status_of

    found = status_of(root)
    state = "the self-test holds" if found.ready else f"self-test before the next segmentation: {found.outdated or 'it failed'}"
    output.line(f"{found.version} in {root}: {state}")
    output.line(f"version before: {found.previous or 'none'}")
    if found.result is not None:
        _show(found.result)
    data = {"version": found.version, "previous": found.previous, "outdated": found.outdated, "ready": found.ready}
    output.result(data | {"self_test": found.result.model_dump(mode="json") if found.result else None})
    if found.result is not None and found.result.chosen is None:
        raise VerificationError("no artifact passed the latest self-test, so nothing is segmented", "ask who made the bundle")


def _told(result: SelfTest) -> int:
    _show(result)
    output.result(result.model_dump(mode="json"), f"self-test of {result.finished:%Y-%m-%d %H:%M} UTC: {result.chosen or 'nothing'} passed")
    return 0 if result.chosen else VerificationError.exit_code


def _show(result: SelfTest) -> None:
    from edge_latup.bundle.selftest import fallback_told

    for test in result.artifacts:
        rows = [("passed" if check.passed else "FAILED", check.name, check.found) for check in test.checks]
        latency = f", {test.latency_ms:,.0f} ms" if test.latency_ms is not None else ""
        output.table(f"{test.artifact} on {test.runtime or 'no runtime'}{latency}", ("", "check", "found"), rows, left=3)
    if told := fallback_told(result):
        output.warning(told)


def _segment(here: Installation, rest: list[str]) -> int:
    from edge_latup.bundle.installed import OVERRIDE, alone
    from edge_latup.bundle.selftest import fallback_told

    if not rest or {"--help", "-h"} & set(rest):
        output.line("segment CASE --out LABELS.nii.gz [options of `edge-latup segment`]: one exam, or a folder of exams with --out FOLDER")
        return 0 if rest else 2
    despite = OVERRIDE in rest
    rest = [word for word in rest if word != OVERRIDE]
    with alone(here.state):
        reason = here.outdated()
        if reason:
            output.note(f"self-test first: {reason}")
        result = here.test(tell=output.note) if reason else here.stored()
        artifact = here.artifact(result, despite_failure=despite)
        if result.chosen is None:
            output.warning("the self-test on this machine FAILED, and that is overridden: do not use the result for a patient")
        elif result.artifacts[0].artifact != result.chosen:
            told = fallback_told(result) or f"{result.artifacts[0].artifact} did not pass its self-test here; using {result.chosen}"
            output.warning(told)
        return _edge_latup(["segment", str(artifact), *rest, "--cache", str(here.cache)])


def _edge_latup(arguments: Sequence[str]) -> int:
    """The command line, as its entry point runs it."""
    from edge_latup.cli import main as command_line

    sys.argv = ["edge-latup", *arguments]
    try:
        command_line()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0
