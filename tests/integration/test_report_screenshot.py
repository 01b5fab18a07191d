"""The report as a browser shows it: every plot drawn, nothing refused, nothing failed. Needs Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Final

import pytest
from PIL import Image
from sample_run import write_run
from sample_sweep import INT8, row, sweep_of

from edge_latup.bench.report import render_report
from edge_latup.bench.report.theme import PALETTE

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1", "--virtual-time-budget=10000",
)  # fmt: skip
WIDTH, HEIGHT = 1440, 7000
SECONDS: Final = 180
PLOTS: Final = ("trade", "size", "memory", "latency", "cases")
BOXES: Final = """<script>addEventListener("load", () => {
  const box = (plot) => { const at = plot.getBoundingClientRect(); return [at.left, at.top, at.right, at.bottom].map(Math.round); };
  const boxes = [...document.querySelectorAll(".plot")].map((plot) => [plot.id, box(plot)]);
  document.body.dataset.boxes = JSON.stringify(Object.fromEntries(boxes));
});</script>"""
"""Makes a page tell where its plots are."""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on PATH; `make browser` installs one")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screenshot")
    path = render_report(write_run(folder / "run"), folder / "report.html")
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{BOXES}</body>"), encoding="utf-8")
    return path


def _browse(browser: str, page: Path, *flags: str) -> str:
    home = page.parent / "home"
    home.mkdir(exist_ok=True)
    command = [browser, *FLAGS, f"--user-data-dir={home / 'profile'}", f"--window-size={WIDTH},{HEIGHT}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "HOME": str(home)}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _dom(browser: str, page: Path) -> str:
    return _browse(browser, page, "--dump-dom")


def _problem(dom: str) -> str | None:
    found = re.search(r'<html[^>]*\sdata-problem="([^"]*)"', dom)
    return unescape(found[1]) if found else None


@pytest.fixture(scope="module")
def dom(browser: str, report: Path) -> str:
    return _dom(browser, report)


def _boxes(dom: str) -> dict[str, tuple[int, int, int, int]]:
    found = re.search(r'data-boxes="([^"]*)"', dom)
    assert found, "the page's load event did not fire"
    return {name: tuple(box) for name, box in json.loads(unescape(found[1])).items()}


def test_no_script_fails_and_nothing_is_refused(dom: str) -> None:
    assert _problem(dom) is None


def test_every_plot_is_drawn(dom: str) -> None:
    parts = re.split(r'<div class="[^"]*plot[^"]*" id="plot-', dom)[1:]
    assert tuple(part.partition('"')[0] for part in parts) == PLOTS
    for part in parts:
        assert 'class="main-svg"' in part


def test_the_screenshot_shows_every_plot_in_colour(browser: str, report: Path, dom: str) -> None:
    png = report.with_suffix(".png")
    _browse(browser, report, f"--screenshot={png}")
    shot = Image.open(png).convert("RGB")
    assert shot.size == (WIDTH, HEIGHT)
    boxes = _boxes(dom)
    assert set(boxes) == {f"plot-{name}" for name in PLOTS}
    for name, (left, top, right, bottom) in boxes.items():
        assert 0 <= left < right <= WIDTH, name
        assert 0 <= top < bottom <= HEIGHT, name
        area = shot.crop((left, top, right, bottom))
        colours = area.getcolors(area.width * area.height)
        assert colours is not None
        assert len(colours) > 60, f"{name} is nearly blank"
        palette = {tuple(bytes.fromhex(colour[1:])) for colour in PALETTE}
        assert any(colour in palette for _, colour in colours) or name == "plot-cases", f"{name} has no series"


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ("Plotly.newPlot(", "Plotly.noPlot(", "is not a function"),
        ("</body>", '<img src="http://127.0.0.1:9/x.png"></body>', "refused to load"),
    ],
)
def test_a_page_that_fails_or_loads_says_so(browser: str, report: Path, tmp_path: Path, was: str, becomes: str, problem: str) -> None:
    page = tmp_path / "spoilt.html"
    page.write_text(report.read_text(encoding="utf-8").replace(was, becomes), encoding="utf-8")
    assert problem in (_problem(_dom(browser, page)) or "nothing")


def test_a_sweep_is_drawn_too(browser: str, tmp_path: Path) -> None:
    rows = [row("fp32", 3400), row("int8", 900, **INT8), row("fp32", 8000, "avx2"), row("int8", 4000, "avx2", **INT8)]
    page = render_report(write_run(tmp_path / "run"), tmp_path / "report.html", sweep_of(rows, {"int8": 0.0004}))
    dom = _dom(browser, page)
    assert _problem(dom) is None
    parts = re.split(r'<div class="[^"]*plot[^"]*" id="plot-', dom)[1:]
    drawn = {part.partition('"')[0] for part in parts if 'class="main-svg"' in part}
    assert drawn == {*PLOTS, "sweep-native", "sweep-emulated"}
