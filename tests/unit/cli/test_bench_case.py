"""`edge-latup bench-case` keeps its tables beside the records and prints them; stdout carries them alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Command
from support import tree

from edge_latup.artifact import Artifact
from edge_latup.bench.case import with_monai
from edge_latup.bench.case.store import load_comparison
from edge_latup.cases.layout import find_cases


def test_a_comparison_prints_what_it_keeps(
    cli: Command, tiny_reference: Artifact, tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path
) -> None:
    case, out = find_cases(tiny_cases)[0].path, tmp_path / "out"
    options = ("--out", out, "--policy", "centre-crop", "--repeats", 1, "--threads", 1)
    done = cli("--json", "bench-case", case, tiny_fp32.folder, "--reference", tiny_reference.folder, *options)
    assert done.code == 0, done.err
    run = load_comparison(out)
    assert list(run.rows) == ["fp32-centre-crop", "fp32-centre-crop-command", "pytorch-centre-crop", "monai-foreground", "monai-full"]
    assert done.data == json.loads((out / "table.json").read_text())
    assert run.record.command.startswith("edge-latup --json bench-case ")
    assert "| monai-full |" in (out / "table.md").read_text()
    assert "fp32-centre-crop on openvino" in done.err
    assert "warning: monai-foreground, monai-full: 0 warm runs" in done.err


WRONG = {
    "no such case": (("nowhere",), "nowhere does not exist"),
    "several cases": (("{cases}", "{fp32}", "--reference", "{pytorch}"), "holds 3 cases, one is asked for"),
    "no reference": (("{case}", "{fp32}"), "--reference and the artifacts go together"),
    "a reference alone": (("{case}", "--reference", "{pytorch}"), "--reference and the artifacts go together"),
    "no such artifact": (("{case}", "nothing", "--reference", "{pytorch}"), "nothing is not an artifact"),
    "a reference that is not PyTorch": (("{case}", "{fp32}", "--reference", "{fp32}"), "not for pytorch"),
    "no such policy": (("{case}", "--policy", "spiral"), "unknown policy 'spiral'"),
    "no such blending": (("{case}", "--blending", "mixer"), "--blending 'mixer' is not known"),
    "twice the same": (("{case}", "{fp32}", "{fp32}", "--reference", "{pytorch}"), "two rows are named fp32-brain-crop"),
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
    places = {"fp32": tiny_fp32.folder, "pytorch": tiny_reference.folder, "cases": tiny_cases, "case": find_cases(tiny_cases)[0].path}
    done = cli("bench-case", *(part.format(**places) for part in arguments), "--out", "out")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "hint: " in done.err
    assert not tree(tmp_path)


def test_without_monai_the_command_says_what_to_install(
    cli: Command, tiny_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(with_monai, "installed", lambda package: package != "monai")
    done = cli("bench-case", find_cases(tiny_cases)[0].path, "--out", "out")
    assert done.code == 3
    assert "hint: in edge-latup's folder: pip install -c constraints.txt '.[compare]'" in done.err
    assert not tree(tmp_path)
