"""`edge-latup control` refuses wrong arguments before anything slow, and ends with code 4 where nothing is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import Command
from planted import FakeTools, Planted
from support import tree

from edge_latup.artifact import Artifact
from edge_latup.bench import accuracy_run
from edge_latup.bench.accuracy_run import Tools
from edge_latup.quantize import methods


@pytest.fixture
def arguments(tiny_fp32: Artifact, tiny_cases: Path, calibration_cases: Path, tmp_path: Path) -> list[object]:
    return ["control", tiny_fp32.folder, "--calibration", calibration_cases, "--cases", tiny_cases, "--out", tmp_path / "out"]


def plant(monkeypatch: pytest.MonkeyPatch, world: Planted) -> list[tuple[str, dict[str, Any]]]:
    """Nothing is quantized, segmented or timed; returns what quantize was asked for."""
    fake, asked = FakeTools(world=world), []
    search = accuracy_run.control
    tools = Tools(evaluator=fake.evaluator, layers=fake.layers, bench=fake.bench)

    def run(plan: Any, out: Path, progress: Any) -> Any:
        object.__setattr__(plan, "tools", tools)
        return search(plan, out, progress)

    def make(source: Artifact, method: str, folder: Path, **options: Any) -> Artifact:
        asked.append((method, options))
        return world.make(options.get("keep_float", ()), folder)

    monkeypatch.setattr(accuracy_run, "control", run)
    monkeypatch.setattr(methods, "quantize", make)
    return asked


def test_what_stayed_float_is_printed_and_kept(
    cli: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[object], tmp_path: Path
) -> None:
    asked = plant(monkeypatch, Planted(layers=3, harm={"layer1": 0.1}))
    done = cli(*arguments, "--float-precision", "bf16", "--margin", 0.01)
    assert done.code == 0, done.err
    assert "INT8 accepted with layers in float: candidates/int8-1-float-" in done.out
    assert "1 of 3 INT8 convolutions stayed float (33.3 % of MACs): layer1" in done.out
    assert "to float" in done.out
    assert "step 1, all INT8: (0 in float, largest mean drop 0.1000) refused: on phantoms" in done.err
    assert "warning: the choice was judged on the cases it was made on" in done.err
    made = [options for method, options in asked if method == "int8"]
    assert {options["float_precision"] for options in made} == {"bf16"}
    assert [options["keep_float"] for options in made][:2] == [(), ("layer0", "layer1", "layer2")]
    assert sum(method == "bf16" for method, _ in asked) == 1
    again = cli("--json", *arguments, "--float-precision", "bf16", "--margin", 0.01)
    assert (again.code, again.data["accepted"], [layer["name"] for layer in again.data["keep_float"]]) == (0, True, ["layer1"])
    changed = cli(*arguments, "--float-precision", "bf16")
    assert (changed.code, changed.out) == (2, "")
    assert "holds a search with other inputs: rule changed" in changed.err


def test_code_4_and_the_steps_where_nothing_is_accepted(cli: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[object]) -> None:
    plant(monkeypatch, Planted(layers=2, harm={"layer0": 0.1, "layer1": 0.1}))
    done = cli("--json", *arguments)
    assert (done.code, done.data["accepted"], done.data["artifact"]) == (4, False, None)
    assert [step["kind"] for step in done.data["steps"]] == ["all INT8", "all float", "to float", "back to INT8"]
    assert "error: no INT8 candidate is accepted (refused: INT8 cannot meet the rule)" in done.err
    assert "hint: use a float artifact" in done.err


WRONG = {
    "precision": (("--float-precision", "int8"), "--float-precision 'int8' is not known"),
    "margin": (("--margin", "5"), "--margin 5 is not a Dice drop"),
    "rule": (("--rule", "nowhere.json"), "nowhere.json does not exist"),
    "confirm": (("--confirm", "{cases}"), "is the same exam as case"),
    "float": (("--float", "nowhere"), "nowhere is not an artifact"),
    "calibration": (("--calibration", "{cases}"), "is the calibration case"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    name: str, cli: Command, arguments: list[object], tiny_cases: Path, tmp_path: Path
) -> None:
    wrong, message = WRONG[name]
    done = cli(*arguments, *(part.format(cases=tiny_cases) for part in wrong))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not tree(tmp_path)


def test_a_compressed_artifact_is_no_source(cli: Command, arguments: list[object], tiny_reference: Artifact, tmp_path: Path) -> None:
    done = cli("control", tiny_reference.folder, *arguments[2:])
    assert done.code == 2
    assert "is not an FP32 ONNX artifact" in done.err
    assert not tree(tmp_path)
