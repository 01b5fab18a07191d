"""What the documents print exists: commands, their options, links and make targets."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from edge_latup.cli import ANYWHERE, app
from edge_latup.networks.build import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "edge_latup" / "demo" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)


def commands() -> list[str]:
    """Calls of edge-latup in code blocks and between backticks, also where a shell chains or pipes them."""
    fenced = "".join(re.findall(r"^```[^\n]*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
    lines = re.sub(r"\\\n\s*", " ", fenced).splitlines() + re.findall(r"^    (edge-latup .*)", TEXT, re.MULTILINE)
    lines += re.findall(r"`(edge-latup [^`\n]+)`", TEXT)
    parts = [part.strip() for line in lines for part in re.split(r" && | \| | > |; ", line.split(" #")[0])]
    return sorted({part for part in parts if part.startswith("edge-latup ") and "COMMAND" not in part})


def test_a_state_dict_becomes_a_checkpoint_as_printed(tmp_path: Path) -> None:
    """The Python of docs/offline.md, on weights of the network it names."""
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "offline.md").read_text(encoding="utf-8"), re.DOTALL)
    made = "import torch\nfrom edge_latup.networks.latup_net import LatupNet\ntorch.save(LatupNet().state_dict(), 'best.pt')\n"
    subprocess.run([sys.executable, "-P", "-c", made + script], cwd=tmp_path, check=True)
    network, spec = load_checkpoint(tmp_path / "ours")
    assert (spec.name, sum(parameter.numel() for parameter in network.parameters())) == ("ours", 3_069_060)


def test_commands_are_found() -> None:
    assert len(commands()) > 40


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command, or sub-command, that the words name, and the words behind its name."""
    found = typer.main.get_command(app)
    while words and (below := getattr(found, "commands", None)) is not None and not words[0].startswith("-"):
        assert words[0] in below, f"there is no {words[0]}"
        found, words = below[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("line", commands())
def test_every_printed_command_and_option_exists(line: str) -> None:
    known, words = leaf([word for word in shlex.split(line.replace("...", ""))[1:] if word not in ANYWHERE])
    options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("line", [line for line in commands() if len(shlex.split(line)) > 2 and "..." not in line])
def test_every_printed_command_has_the_options_it_needs(line: str) -> None:
    """Of commands that are printed with an argument: a command's bare name, with or without an option, is a way to speak of it."""
    known, words = leaf([word for word in shlex.split(line)[1:] if word not in ANYWHERE])
    plain = [word for before, word in itertools.pairwise(["", *words]) if not word.startswith("-") and not before.startswith("--")]
    if not plain or "--help" in words:
        return
    missing = [p.opts[0] for p in known.params if p.param_type_name == "option" and p.required and not set(p.opts) & set(words)]
    assert not missing


def test_every_command_answers_help() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for below in ("", *getattr(command, "commands", ())):
            assert CliRunner().invoke(app, [word for word in (name, below, "--help") if word]).exit_code == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    printed = re.findall(r"^make ([a-z-]+)", TEXT, re.MULTILINE)
    assert [target for target in printed if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    """`make commands` writes it."""
    told = subprocess.run(
        [sys.executable, "-P", "-m", "typer", "edge_latup.cli", "utils", "docs", "--name", "edge-latup"],
        capture_output=True, encoding="utf-8", check=True, env={**os.environ, "NO_COLOR": "1", "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == told.stdout.replace("&#x27;", "'")
