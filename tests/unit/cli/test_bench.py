"""`edge-latup bench` keeps the run's tables beside its records and prints them; stdout carries them alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command import Command, Done
from support import tree
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.bench.store import load_run
from edge_latup.cases.layout import find_cases
from edge_latup.cli.bench import parse_entry
from edge_latup.errors import ArtifactError, InputError

QUICK = ("--runs", 2, "--threads", 1)


@pytest.fixture
def done(cli: Command, tiny_fp32: Artifact, compressed: Compress, tiny_cases: Path, tmp_path: Path) -> Done:
    """A run of two artifacts, one of them on another runtime than its first, on one case."""
    small = compressed("dynamic-range", "openvino").folder
    case = find_cases(tiny_cases)[0].path
    return cli("--json", "bench", tiny_fp32.folder, f"{small}@onnxruntime", "--cases", case, "--out", tmp_path / "run", *QUICK)


def test_a_run_prints_what_it_keeps(done: Done, tmp_path: Path) -> None:
    assert done.code == 0, done.err
    run = load_run(tmp_path / "run")
    assert [(row.artifact, row.runtime) for row in run.rows.values()] == [("fp32", "openvino"), ("dynamic-range-openvino", "onnxruntime")]
    assert run.record.command.startswith("edge-latup --json bench ")
    assert done.data == json.loads((tmp_path / "run" / "table.json").read_text())
    lines = list(csv.reader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert [line[0] for line in lines] == ["artifact", "fp32", "dynamic-range-openvino"]
    assert "| fp32 |" in (tmp_path / "run" / "table.md").read_text()
    assert "timing fp32 on openvino" in done.err
    assert "warning: fp32: only 2 samples" in done.err
    assert "was used to train the network" in run.record.notes[0]


def test_the_table_is_for_people_and_quiet_is_for_nobody(
    cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli("bench", tiny_fp32.folder, "--out", tmp_path / "run", *QUICK)
    assert done.code == 0, done.err
    assert "Speed, memory and size" in done.out
    assert f"records and tables in {tmp_path / 'run'}" in done.out
    # Warnings are never silenced; two runs on this machine are too few and are told so.
    done = cli("--quiet", "bench", tiny_fp32.folder, "--out", tmp_path / "again", *QUICK)
    assert (done.code, done.out) == (0, "")
    assert all(line.startswith("warning: ") for line in done.err.splitlines())


WRONG = {
    "no such artifact": (("nothing",), "nothing is not an artifact"),
    "no such runtime": (("{fp32}@tvm",), "unknown runtime 'tvm'"),
    "another runtime": (("{fp32}@pytorch",), "not for pytorch"),
    "PyTorch alone": (("{pytorch}",), "there is no artifact to compare: PyTorch is only timed"),
    "twice the same": (("{fp32}", "{fp32}"), "two artifacts are named fp32"),
    "no such reference": (("{fp32}", "--reference", "int8"), "the reference 'int8' is not among the artifacts: fp32"),
    "no such baseline": (("{fp32}", "--baseline", "int8"), "the baseline 'int8' is not among the artifacts"),
    "a reference without output": (("{pytorch}", "{fp32}", "--reference", "pytorch"), "cannot be timed only"),
    "no such cases": (("{fp32}", "--cases", "nowhere"), "nowhere does not exist"),
    "the same cases twice": (("{fp32}", "--cases", "{cases}", "--cases", "{cases}"), "two cases are named phantom-0005-0000"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    cli: Command,
    tiny_fp32: Artifact,
    tiny_reference: Artifact,
    tiny_cases: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[name]
    named = [part.format(fp32=tiny_fp32.folder, pytorch=tiny_reference.folder, cases=tiny_cases) for part in arguments]
    done = cli("bench", *named, "--out", "run")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "hint: " in done.err
    assert not tree(tmp_path)


def test_an_entry_is_a_folder_and_perhaps_a_runtime(tiny_fp32: Artifact, tiny_reference: Artifact, tmp_path: Path) -> None:
    (tmp_path / "a@b").symlink_to(tiny_fp32.folder)
    assert parse_entry(str(tiny_fp32.folder)).runtime == "openvino"
    assert parse_entry(f"{tiny_fp32.folder}@onnxruntime").runtime == "onnxruntime"
    assert parse_entry(f"{tmp_path / 'a@b'}").runtime == "openvino"
    assert parse_entry(f"{tmp_path / 'a@b'}@onnxruntime").runtime == "onnxruntime"
    assert parse_entry(str(tiny_reference.folder)).timed_only
    with pytest.raises(ArtifactError):
        parse_entry(f"{tmp_path / 'none'}@openvino")
    with pytest.raises(InputError, match="unknown runtime 'b'"):
        parse_entry(f"{tiny_fp32.folder}@b")
