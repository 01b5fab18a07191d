"""The scripts that bundles bring, as far as they can be checked on Linux. PowerShell and cmd.exe never ran them: see docs/bundles.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Parser

from edge_latup.bundle import install, standalone
from edge_latup.bundle.documents import INSTALL_PS1, INSTALL_SH

SHELL = {
    "install.sh": INSTALL_SH,
    "install-standalone.sh": standalone.INSTALL_SH,
    "segment": install.LAUNCHER.format(start=install.START, verb="segment"),
}
CMD = install.WINDOWS_LAUNCHER.format(start=install.START, verb="segment")
KNOWN = {"foreach", "if", "exit", "continue", "Split-Path", "Join-Path", "Get-Command", "Write-Error"}
"""Words of PowerShell that start a command in install.ps1."""


@pytest.mark.parametrize("name", SHELL)
def test_shell_scripts_are_lint_free(name: str, tmp_path: Path) -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("no shellcheck on PATH: apt-get install shellcheck")
    (tmp_path / name).write_text(SHELL[name], encoding="ascii")
    done = subprocess.run([checker, "--shell=sh", "--severity=style", tmp_path / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SHELL)
def test_shell_scripts_parse(name: str) -> None:
    assert subprocess.run(["sh", "-n"], input=SHELL[name], text=True, capture_output=True, check=False).stderr == ""


def without_strings(text: str) -> str:
    """PowerShell without comments and strings; what is left of a string is its quotes."""
    text = re.sub(r"#.*", "", text)
    return re.sub(r"'[^']*'", "''", text)


def test_powershell_is_balanced_and_knows_its_words() -> None:
    """A sanity check, not a parser: quotes, brackets, commands, and no operator that Windows PowerShell 5.1 lacks."""
    assert INSTALL_PS1.isascii()
    code = without_strings(INSTALL_PS1)
    assert code.count("'") % 2 == 0
    assert '"' not in code
    depth: list[str] = []
    for letter in code:
        if letter in "([{":
            depth.append({"(": ")", "[": "]", "{": "}"}[letter])
        elif letter in ")]}":
            assert depth.pop() == letter
    assert depth == []
    assert not re.search(r"&&|\|\||\?\?|\?\.", code)
    words = set(re.findall(r"(?:^|[({;])\s*([A-Za-z][\w-]*)", code, re.MULTILINE)) - {"param"}
    assert words <= KNOWN, words - KNOWN


def faults(script: str) -> list[tuple[int, str]]:
    """Line and kind of what a grammar of PowerShell cannot read."""
    found, waiting = [], [Parser(Language(tree_sitter_powershell.language())).parse(script.encode()).root_node]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.is_error or node.is_missing:
            found.append((node.start_point[0] + 1, node.type))
    return found


def test_powershell_parses() -> None:
    assert faults(INSTALL_PS1) == []


@pytest.mark.parametrize("part", ["{", "}", "(", ")", "'"])
def test_powershell_with_anything_missing_does_not_parse(part: str) -> None:
    assert faults(INSTALL_PS1.replace(part, "", 1))


def test_cmd_has_one_line_of_each_kind() -> None:
    """cmd.exe ends a quoted word at any quote and replaces %names%: Python's own words must have neither."""
    assert CMD.isascii()
    assert not set(install.START) & set('"%^&|<>!')
    lines = CMD.splitlines()
    assert lines[0] == "@echo off"
    assert all(line.count('"') % 2 == 0 for line in lines)
    assert set(re.findall(r"%(\w+)%", CMD)) == {"version", "python"}
    assert lines[-1].endswith("segment %*")
