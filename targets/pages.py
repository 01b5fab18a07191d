"""The pages of docs/targets: written by hand, but for the facts, which come from the profiles.

`make pages` brings the facts up to date; a test fails where they are not. A page's facts stand between two comments, and nothing else in
it is touched. A profile without a page gets one that holds its facts only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edge_latup.errors import InputError
from edge_latup.records import write_text
from edge_latup.targets import describe
from edge_latup.targets.profile import Profile, known_targets, load_profile

BEGIN: Final = "<!-- facts from targets/profiles; `make pages` writes them -->"
END: Final = "<!-- end of facts -->"
INDEX: Final = "README.md"
_ADDRESS: Final = re.compile(r"(?:, )?(https?://\S+)$")


def updated(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each page's path and what it must hold.

    Raises:
        InputError: a page without the two comments between which the facts stand.
    """
    profiles = [load_profile(name) for name in known_targets()]
    yield folder / INDEX, _placed(folder / INDEX, "Targets", index(profiles))
    for profile in profiles:
        path = folder / f"{profile.name}.md"
        yield path, _placed(path, profile.title, facts(profile))


def write_pages(folder: Path) -> list[Path]:
    """Bring every page up to date; returns those that changed."""
    changed = [(path, text) for path, text in updated(folder) if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path, text in changed:
        write_text(text, path)
    return [path for path, _ in changed]


def index(profiles: Sequence[Profile]) -> str:
    """The overview: a row for each target, linked to its page."""
    rows = [(f"[{name}]({name}.md)", *rest) for name, *rest in map(describe.overview_row, profiles)]
    return _table(describe.OVERVIEW, rows, left=3)


def facts(profile: Profile) -> str:
    """Everything that the profile knows, as Markdown."""
    parts = [profile.processor, "## Figures", _table(describe.FIGURES, describe.figure_rows(profile), left=3)]
    for title, columns, rows in (
        ("Power modes", describe.MODES, describe.mode_rows(profile)),
        ("Systems", describe.SYSTEMS, describe.system_rows(profile)),
        ("Refused, and what to do instead", describe.REFUSALS, describe.refusal_rows(profile)),
    ):
        if rows:
            parts += [f"## {title}", _table(columns, rows, left=len(columns))]
    parts += ["## Known limits", _bullets(profile.limits)]
    parts += ["## Sources", _bullets(map(_linked, describe.sources_of(profile)))]
    return "\n\n".join(parts)


def _placed(path: Path, title: str, text: str) -> str:
    """The page with its facts replaced."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} has no place for the facts", f"put these two lines where they belong: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A Markdown table; the first `left` columns are left-aligned, the others right-aligned."""
    rule = ["---" if index < left else "---:" for index in range(len(columns))]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in (columns, rule, *rows))


def _bullets(items: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _linked(source: str) -> str:
    """A document's name as a link to its address."""
    name = _ADDRESS.sub("", source)
    found = _ADDRESS.search(source)
    return f"[{name or found[1]}]({found[1]})" if found else source


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
