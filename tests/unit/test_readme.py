"""What the README prints exists: its commands, their options, its links and its make targets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from edge_latup.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "architecture.md", ROOT / "edge_latup" / "demo" / "README.md"]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)


def commands() -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", TEXT)
    return sorted({line.split("#")[0].strip() for line in joined.splitlines() if line.startswith("edge-latup ")})


@pytest.mark.parametrize("line", commands())
def test_every_printed_command_and_option_exists(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "--json"]
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert words[0] in known
    options = {name for parameter in known[words[0]].params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_command_answers_help() -> None:
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name + "/" + path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    printed = re.findall(r"^make ([a-z-]+)", TEXT, re.MULTILINE)
    assert [target for target in printed if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
