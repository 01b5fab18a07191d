"""The report is one file that needs no network, shows what the records say, and is not written where one is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_run import DROPS, ORIGINS, REAL, REFERENCE, ROWS, Plan, sample, write_run
from support import tree
from typer.testing import CliRunner

from edge_latup.bench.report import render_report
from edge_latup.bench.report.pictures import DIFFERENCE_COLOURS, FILL, LABEL_COLOURS, case_panels, difference, picture_rows
from edge_latup.bench.store import Picture, load_run
from edge_latup.bench.summary import summarise
from edge_latup.bench.table import tables
from edge_latup.bench.verdict import verdict
from edge_latup.errors import InputError, MissingDependencyError, SpecError

LOADS = ("src", "href", "data", "action", "poster", "srcset", "background", "formaction", "manifest", "ping", "xlink:href")
"""Attributes by which a page fetches or leads elsewhere."""


class Page(HTMLParser):
    """What a page holds: loads, table cells, text outside scripts and styles, scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._cell = False
        self._skip = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADS]
        self.raw["style"] += [value or "" for name, value in attrs if name == "style"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True
        if tag in self.raw:
            self._skip = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")
        self._skip = "" if tag == self._skip else self._skip

    def handle_data(self, data: str) -> None:
        if self._skip:
            self.raw[self._skip][-1] += data
            return
        self.words.append(data)
        if self._cell:
            self.rows[-1][-1] += data


def _rendered(tmp_path: Path, plan: Plan | None = None) -> str:
    return render_report(write_run(tmp_path / "run", plan), tmp_path / "report.html").read_text(encoding="utf-8")


def _plots(text: str) -> dict[str, dict[str, Any]]:
    (found,) = re.findall(r"^const plots = (.*);$", text, re.MULTILINE)
    return {plot["name"]: plot["figure"] for plot in json.loads(found)}


def _words(text: str) -> str:
    return " ".join(" ".join(Page(text).words).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _rendered(tmp_path_factory.mktemp("report"))


def test_a_folder_is_no_place_for_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(InputError, match="is a folder") as caught:
        render_report(run, tmp_path)
    assert str(tmp_path / "report.html") in caught.value.hint


def test_nothing_is_loaded_from_elsewhere(report: str) -> None:
    page = Page(report)
    assert page.loads
    assert all(value.startswith("data:image/png;base64,") for value in page.loads)
    assert not {"link", "iframe", "object", "embed", "base", "a", "form"} & set(page.tags)
    assert not [style for style in page.raw["style"] if "url(" in style or "@import" in style or "http" in style]


def test_the_browser_is_told_to_load_nothing(report: str) -> None:
    assert "content=\"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\"" in report


def test_plotly_is_inside_once(report: str) -> None:
    scripts = Page(report).raw["script"]
    assert [script.count("plotly.js v") > 0 for script in scripts] == [False, True, False]


def test_every_table_shows_the_records(tmp_path: Path, report: str) -> None:
    shown = {tuple(_plain(cell) for cell in row) for row in Page(report).rows}
    for table in tables(sample(tmp_path / "run"), full=True):
        for row in table.rows:
            assert row in shown


def _plain(cell: str) -> str:
    return re.sub(r"(?<!\bdo not )use$|do not use$|timed only$", "", cell)


def test_every_case_and_region_is_listed(tmp_path: Path, report: str) -> None:
    lines = [row for row in Page(report).rows if len(row) > 2 and row[2] in ("WT", "TC", "ET")]
    records = sample(tmp_path / "run").drift.values()
    expected = [(case.case, case.origin, region) for record in records for case in record.cases for region in case.regions]
    assert [tuple(line[:3]) for line in lines] == expected
    drops = [drift.dice_drop for record in records for case in record.cases for drift in case.regions.values()]
    assert [float(line[5]) for line in lines] == pytest.approx(drops, abs=5.1e-5)


def test_the_verdict_stands_on_top_and_in_the_title(tmp_path: Path, report: str) -> None:
    found = verdict(sample(tmp_path / "run"))
    words = _words(report)
    assert words.index(found.headline) < words.index("Figures")
    for line in (*found.reasons, *found.scope):
        assert line in words
    assert f"<title>edge-latup: {found.headline}</title>" in report


def test_a_refused_candidate_is_called_that(tmp_path: Path) -> None:
    words = _words(_rendered(tmp_path, Plan(drops=DROPS | {"openvino-int8": 0.02})))
    assert "Do not use openvino-int8 here: its mean Dice drop of WT" in words


def test_warnings_are_shown_where_there_are_any(tmp_path: Path, report: str) -> None:
    assert 'id="warnings"' not in report
    words = _words(_rendered(tmp_path, Plan().changed("openvino-bf16", load_average=9.0)))
    assert "Warnings openvino-bf16: the machine was busy when timing began (load average 9.0, 2 threads)" in words
    assert "1 warning qualifies these figures" in words
    words = _words(_rendered(tmp_path / "used", Plan().changed("openvino-int8", load_average=9.0)))
    assert "1 warning concerns openvino-int8 itself" in words


def test_machine_versions_method_and_notes_are_stated(report: str) -> None:
    words = _words(report)
    for text in (
        "Test Processor 9000",
        "AVX-512-VNNI",
        "openvino 1.2.3",
        "torch 4.5.6",
        "2030-01-02T03:04:05+00:00",
        "edge-latup bench A B C",
    ):
        assert text in words
    assert "3 warm-up runs, 24 samples over" in words
    assert "Made-up test data: nothing in this report was measured." in words


def test_plots_draw_the_records(tmp_path: Path, report: str) -> None:
    run, plots = sample(tmp_path / "run"), _plots(report)
    assert set(plots) == {"trade", "size", "memory", "latency", "cases"}
    assert plots["size"]["data"][0]["x"] == [row.model_bytes / 1e6 for row in run.rows.values()]
    before, added = (trace["x"] for trace in plots["memory"]["data"])
    assert np.add(before, added) == pytest.approx([row.peak_rss_bytes / 2**20 for row in run.rows.values()])
    strips = [trace for trace in plots["latency"]["data"] if trace["xaxis"] == "x"]
    assert [trace["x"] for trace in strips] == [list(row.samples_ms) for row in run.rows.values()]


def test_the_trade_plot_has_the_mean_drops_at_the_median(tmp_path: Path, report: str) -> None:
    run, figure = sample(tmp_path / "run"), _plots(report)["trade"]
    for axis, origin in (("x", "phantom"), ("x2", "real"), ("x3", "real, pseudo-label")):
        for name, record in run.drift.items():
            (marks,) = (trace for trace in figure["data"] if trace["name"] == name and trace["xaxis"] == axis)
            summary = summarise(record, origin)  # type: ignore[arg-type]
            assert summary is not None
            assert marks["y"] == list(summary.dice_drop.values())
            assert set(marks["x"]) == {run.rows[name].p50_ms}


def test_the_case_plot_has_a_point_for_every_labelled_case_region_and_candidate(tmp_path: Path, report: str) -> None:
    run, figure = sample(tmp_path / "run"), _plots(report)["cases"]
    drawn = sorted(drop for trace in figure["data"] for drop in trace["x"])
    assert drawn == sorted(region.dice_drop for record in run.drift.values() for case in record.cases for region in case.regions.values())  # type: ignore[type-var]
    symbols = {trace["name"]: trace["marker"]["symbol"] for trace in figure["data"]}
    assert symbols == {"phantom": "circle", "real case": "star", "real case, pseudo-label": "star-open"}


def test_without_labels_there_is_no_drop_to_draw(tmp_path: Path) -> None:
    assert set(_plots(_rendered(tmp_path, Plan(labelled=False)))) == {"size", "memory", "latency"}


def test_a_run_without_cases_still_has_a_report(tmp_path: Path) -> None:
    text = _rendered(tmp_path, Plan(origins={}))
    assert 'id="pictures"' not in text
    assert 'id="cases"' not in text
    assert "No recommendation" in _words(text)


def test_attribution_is_carried_where_a_brats_case_is(tmp_path: Path, report: str) -> None:
    words = _words(report)
    for text in ("DOI 10.7937/jc8x-9874", "arXiv:2107.02314", "34(10):1993-2024", "4:170117", "26:1045", "arXiv:2402.17317", "CC BY 4.0"):
        assert text in words
    assert "pseudo-label" in words
    real = _words(_rendered(tmp_path / "a", Plan(origins={REAL: "real"}, run={"pictured_case": None})))
    assert "10.7937/jc8x-9874" in real
    assert "2402.17317" not in real
    own = _words(_rendered(tmp_path / "b", Plan(origins={"clinic-1": "real"})))
    assert "10.7937/jc8x-9874" not in own
    assert "Source and licence of clinic-1 are not known to this software" in own
    phantoms = {case: origin for case, origin in ORIGINS.items() if origin == "phantom"}
    assert 'id="attribution"' not in _rendered(tmp_path / "c", Plan(origins=phantoms))


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&"
    text = _rendered(tmp_path, Plan(rows={REFERENCE: ROWS[REFERENCE], name: ROWS["openvino-bf16"]}))
    page = Page(text)
    assert name not in text
    assert any(row[0].startswith(name) for row in page.rows if row)
    assert all(value.startswith("data:image/png;base64,") for value in page.loads)


def test_the_same_records_give_the_same_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    first = render_report(run, tmp_path / "first.html").read_bytes()
    assert render_report(run, tmp_path / "second.html").read_bytes() == first


def _files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_missing_record_leaves_no_report(tmp_path: Path) -> None:
    names = list(_files(write_run(tmp_path / "whole")))
    assert len(names) == 1 + len(ROWS) + len(DROPS) + 1
    for index, name in enumerate(names):
        run = write_run(tmp_path / f"run{index}")
        (run / name).unlink()
        before = tree(tmp_path)
        with pytest.raises(SpecError) as caught:
            render_report(run, tmp_path / "out" / "report.html")
        assert str(run / name) in caught.value.message
        assert "edge-latup bench" in caught.value.hint
        assert tree(tmp_path) == before


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    with pytest.raises(MissingDependencyError, match="the report needs plotly") as caught:
        render_report(run, tmp_path / "report.html")
    assert "pip install" in caught.value.hint
    assert not (tmp_path / "report.html").exists()


def test_differences_by_kind() -> None:
    reference = np.array([[0, 1, 2, 3, 0]], np.uint8)
    candidate = np.array([[0, 0, 2, 1, 3]], np.uint8)
    assert difference(reference, candidate).tolist() == [[0, 1, 0, 3, 2]]


def _decoded(source: str) -> np.ndarray:
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_pictures_paint_labels_and_differences_in_the_colours_of_the_legend() -> None:
    image, first, second = np.full((30, 40), 0.5, np.float32), np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
    first[10:20, 10:20], second[10:20, 11:21] = 2, 2
    second[12:14, 12:14] = 3
    shot = Picture(case="case", slice_index=1, images={"flair": image}, label=first, predictions={"reference": first, "candidate": second})
    flair, label = (_decoded(panel.source) for panel in case_panels(shot))
    assert flair.shape == label.shape == (60, 80, 3)
    assert label[20, 20].tolist() == list(LABEL_COLOURS[2][1])
    filled = (1 - FILL) * 127.5 + FILL * np.array(LABEL_COLOURS[2][1])
    np.testing.assert_allclose(label[30, 30], filled, atol=1)
    assert flair[20, 20].tolist() == [128, 128, 128]


def test_rows_of_pictures_count_what_differs(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    assert run.picture is not None
    rows = picture_rows(run, run.picture)
    assert [row.artifact for row in rows] == list(run.candidates)
    for row in rows:
        found = difference(run.picture.predictions[REFERENCE], run.picture.predictions[row.artifact])
        assert row.differing == {title: int((found == key).sum()) for key, (title, _) in DIFFERENCE_COLOURS.items()}
        painted = _decoded(row.panels[2].source)
        for key, (_, colour) in DIFFERENCE_COLOURS.items():
            assert (painted == colour).all(axis=-1).any() == (found == key).any()


def test_the_command_prints_the_path(tmp_path: Path) -> None:
    import typer

    from edge_latup.cli.report import report as command

    app = typer.Typer()
    app.command()(command)
    run = write_run(tmp_path / "run")
    result = CliRunner().invoke(app, [str(run)])
    assert (result.exit_code, result.stdout.replace("\n", "")) == (0, str(run / "report.html"))
    assert (run / "report.html").is_file()
