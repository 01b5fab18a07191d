"""The pages of docs/targets hold the facts of the profiles as they are now, and text that somebody wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from edge_latup.cli import app
from edge_latup.errors import InputError
from edge_latup.targets import pages
from edge_latup.targets.describe import sources_of
from edge_latup.targets.pages import BEGIN, END, facts, updated, write_pages
from edge_latup.targets.profile import known_targets, load_profile

PAGES = Path(__file__).resolve().parents[3] / "docs" / "targets"


def test_the_committed_pages_are_up_to_date() -> None:
    stale = [path.name for path, text in updated(PAGES) if not path.exists() or path.read_text(encoding="utf-8") != text]
    assert not stale, f"run make pages: {stale}"


def test_there_is_a_page_for_each_profile_and_no_other() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*known_targets(), "README"}


@pytest.mark.parametrize("name", known_targets())
def test_a_page_says_what_to_install_and_what_to_expect(name: str) -> None:
    written = (PAGES / f"{name}.md").read_text(encoding="utf-8").partition(BEGIN)[0]
    assert "## What to install" in written
    assert "## What to expect" in written


@pytest.mark.parametrize("name", known_targets())
def test_the_facts_name_every_source_limit_and_refusal(name: str) -> None:
    profile = load_profile(name)
    page = facts(profile)
    for source in sources_of(profile):
        assert re.search(r"https?://\S+$", source), source
        assert source.rpartition(" ")[2] in page
    assert all(limit in page for limit in profile.limits)
    assert all(f"| {key} |" in page for key in profile.refused)
    assert all(f"| {mode.name} |" in page for mode in profile.power_modes)


def test_commands_in_blocks_exist() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.md"))
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    named = {line.split()[1] for line in blocks.splitlines() if line.startswith("edge-latup ")}
    assert named
    assert named <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_only_the_facts_of_a_page_are_replaced(tmp_path: Path) -> None:
    name = known_targets()[0]
    path = tmp_path / f"{name}.md"
    path.write_text(f"# Mine\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    assert path in write_pages(tmp_path)
    text = path.read_text()
    assert text.startswith("# Mine\n\nBefore.\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert "## Figures" in text
    assert write_pages(tmp_path) == [], "a second time changes nothing"


def test_a_new_page_holds_its_facts(tmp_path: Path) -> None:
    assert len(write_pages(tmp_path)) == len(known_targets()) + 1
    assert "Maxwell" in (tmp_path / "jetson-nano-4gb.md").read_text()
    assert "[x86-64-amx](x86-64-amx.md)" in (tmp_path / "README.md").read_text()


def test_a_page_without_a_place_for_facts_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Nothing here\n")
    with pytest.raises(InputError) as caught:
        write_pages(tmp_path)
    assert str(path) in caught.value.message
    assert BEGIN in caught.value.hint
    assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


def test_a_cell_cannot_break_its_table() -> None:
    row = pages._table(("a",), [("dpkg -l | grep nvinfer",)], left=1).splitlines()[-1]
    assert row.count("|") == 2
