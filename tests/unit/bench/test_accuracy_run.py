"""A run of accuracy control: resumed and not redone, never mixed, cases kept apart, and a result that says what it rests on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import RULE, FakeTools, Planted
from support import tree
from tiny_models import Compress

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.accuracy_inputs import divide
from edge_latup.bench.accuracy_measure import CaseEvaluator, Exam, candidate_name, examine, int8_convolutions
from edge_latup.bench.accuracy_records import CaseInput
from edge_latup.bench.accuracy_run import ControlPlan, Tools, control
from edge_latup.bench.accuracy_table import control_lines, control_tables, control_warnings
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import load_run
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.errors import CaseError, EdgeLatupError, InputError, SpecError
from edge_latup.manifest import SeenCase

HARM = {"layer1": 0.1, "layer3": 0.2}
CHOSEN = candidate_name(("layer1", "layer3"))


def silent(line: str) -> None:
    return


@pytest.fixture
def cases(tiny_cases: Path) -> tuple[CaseFiles, ...]:
    return tuple(find_cases(tiny_cases))


@pytest.fixture
def fake() -> FakeTools:
    return FakeTools(world=Planted(layers=5, harm=HARM), p50={"fp32": 900.0, "int8-full": 400.0, CHOSEN: 460.0})


@pytest.fixture
def plan(tiny_fp32: Artifact, cases: tuple[CaseFiles, ...], calibration_cases: Path, fake: FakeTools) -> ControlPlan:
    """Chosen on three phantoms, confirmed on two others."""
    return ControlPlan(
        reference=tiny_fp32, make=fake.world.make, calibration=(SeenCase(name="seen", sha256="a" * 64),), cases=cases,
        confirm=tuple(find_cases(calibration_cases)), rule=RULE, threads=2, settings={"crops_per_case": 1},
        tools=Tools(evaluator=fake.evaluator, layers=fake.layers, bench=fake.bench),
    )  # fmt: skip


def test_the_result_names_the_layers_the_cases_and_the_cost(plan: ControlPlan, tmp_path: Path) -> None:
    result = control(plan, tmp_path / "out", silent)
    assert (result.outcome, [layer.name for layer in result.keep_float]) == ("INT8 accepted with layers in float", ["layer1", "layer3"])
    assert len(result.chosen_on) == 3
    assert len(result.confirmed_on) == 2
    assert not set(result.chosen_on) & set(result.confirmed_on)
    assert result.decision is not None
    assert result.decision.origins[0].cases == 2
    assert {timed.role: timed.artifact for timed in result.timing} == {"float": "fp32", "all INT8": "int8-full", "chosen": CHOSEN}
    text = "\n".join(control_lines(result))
    assert f"INT8 accepted with layers in float: candidates/{CHOSEN}" in text
    assert "2 of 5 INT8 convolutions stayed float (40.0 % of MACs): layer1, layer3" in text
    full, chosen = (next(timed.p50_ms for timed in result.timing if timed.role == role) for role in ("all INT8", "chosen"))
    assert f"cost in time: {chosen - full:+,.1f} ms" in text
    assert "chosen on 3 cases; judged on 2 cases that had no part in the choice" in text
    assert not any("INT8 pays nothing" in warning for warning in control_warnings(result))
    titles = [table.title for table in control_tables(result)]
    assert titles == ["Steps", "What each INT8 convolution alone in float gives back", "Times, side by side"]
    by_role = {timed.role: timed for timed in result.timing}
    assert by_role["float"].dice_drop is by_role["float"].iou_drop is None
    full_drop, chosen_drop = by_role["all INT8"].dice_drop, by_role["chosen"].dice_drop
    assert full_drop is not None
    assert chosen_drop is not None
    assert chosen_drop < 0.005 < full_drop
    assert all(timed.model_bytes for timed in result.timing)


def test_records_and_the_two_int8_artifacts_are_what_is_left(plan: ControlPlan, tmp_path: Path) -> None:
    result = control(plan, tmp_path, silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.json", "bench", "candidates", "measurements", "result.json"]
    assert sorted(path.name for path in (tmp_path / "candidates").iterdir()) == sorted(["int8-full", CHOSEN])
    assert result.artifact is not None
    open_artifact(tmp_path / result.artifact)


def test_a_run_that_is_killed_anywhere_goes_on_where_it_was(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    whole = control(plan, tmp_path / "whole", silent)
    needed = list(fake.evaluated)
    assert len(needed) == len(set(needed)), "nothing is measured twice"
    for death in range(len(needed)):
        fake.evaluated.clear()
        fake.dies_at = death
        out = tmp_path / f"killed-{death}"
        with pytest.raises(KeyboardInterrupt):
            control(plan, out, silent)
        assert not (out / "result.json").exists()
        assert fake.evaluated == needed[:death]
        assert control(plan, out, silent) == whole
        assert fake.evaluated == needed, "what was finished is not done again"


def test_a_run_that_is_killed_in_its_last_bench_repeats_that_alone(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    def dies(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        control(replace(plan, tools=replace(plan.tools, bench=dies)), tmp_path, silent)
    evaluated = list(fake.evaluated)
    assert control(plan, tmp_path, silent).accepted
    assert (fake.evaluated, len(fake.benched)) == (evaluated, 1)
    (tmp_path / "result.json").unlink()
    control(plan, tmp_path, silent)
    assert (fake.evaluated, len(fake.benched)) == (evaluated, 1), "a bench run that is complete is taken too"


def test_a_finished_run_is_read_and_not_repeated(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    result = control(plan, tmp_path, silent)
    before, evaluated = tree(tmp_path), len(fake.evaluated)
    lines: list[str] = []
    assert control(plan, tmp_path, lines.append) == result
    assert lines[-1] == f"{tmp_path} is finished"
    assert (len(fake.evaluated), len(fake.benched)) == (evaluated, 1)
    assert tree(tmp_path) == before


def test_a_run_that_was_out_of_steps_goes_on_with_more(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    short = control(replace(plan, max_steps=1), tmp_path, silent)
    assert (short.outcome, short.artifact, short.timing) == ("refused: out of steps", None, ())
    evaluated = list(fake.evaluated)
    assert control(plan, tmp_path, silent).accepted
    assert fake.evaluated[: len(evaluated)] == evaluated
    assert len(set(fake.evaluated)) == len(fake.evaluated)


CHANGES: dict[str, Callable[[ControlPlan], ControlPlan]] = {
    "rule": lambda plan: replace(plan, rule=GateRule(worst_drop=0.2)),
    "settings": lambda plan: replace(plan, settings={"crops_per_case": 2}),
    "calibration": lambda plan: replace(plan, calibration=(SeenCase(name="seen", sha256="b" * 64),)),
    "development": lambda plan: replace(plan, cases=plan.cases[:2]),
    "confirmation": lambda plan: replace(plan, confirm=(plan.confirm or ())[:1]),
    "threads": lambda plan: replace(plan, threads=1),
    "floats": lambda plan: replace(plan, floats=(_named(plan.reference, "other"),)),
    "reference": lambda plan: replace(plan, reference=_named(plan.reference, "other")),
}


def _named(artifact: Artifact, name: str) -> Artifact:
    return replace(artifact, manifest=artifact.manifest.model_copy(update={"name": name}))


@pytest.mark.parametrize("name", CHANGES)
def test_a_search_is_never_continued_with_other_inputs(name: str, plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    fake.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        control(plan, tmp_path, silent)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=f"holds a search with other inputs: {name} changed"):
        control(CHANGES[name](plan), tmp_path, silent)
    assert tree(tmp_path) == before


def test_a_label_that_was_edited_makes_another_search(plan: ControlPlan, tmp_path: Path) -> None:
    shutil.copytree(plan.cases[0].folder, tmp_path / "case" / plan.cases[0].name)
    (own,) = find_cases(tmp_path / "case")
    plan = replace(plan, cases=(own, *plan.cases[1:]))
    control(plan, tmp_path / "out", silent)
    assert own.label is not None
    other = plan.cases[1].label
    assert other is not None
    shutil.copy(other, own.label)
    with pytest.raises(InputError, match="development changed"):
        control(plan, tmp_path / "out", silent)


def copy_of(files: CaseFiles, folder: Path) -> CaseFiles:
    """The same exam under another name."""
    folder.mkdir(parents=True)
    for source in (*(image.path for image in files.images.values()), files.label):
        assert source is not None
        shutil.copy(source, folder / source.name.replace(files.name, folder.name))
    return find_cases(folder)[0]


def test_cases_that_must_be_apart_are_known_by_their_voxels(plan: ControlPlan, tmp_path: Path) -> None:
    twin = copy_of(plan.cases[0], tmp_path / "cases" / "another-name")
    known = examine(twin, plan.reference.manifest.spec).known
    calibrated = replace(plan, calibration=(SeenCase(name="calibrated", sha256=known.sha256),))
    for wrong, message in (
        (replace(plan, confirm=(twin,)), f"case another-name in .* is the same exam as case {plan.cases[0].name} in"),
        (replace(plan, cases=(*plan.cases, twin)), "is the same exam as case"),
        (calibrated, f"case {plan.cases[0].name} in .* is the calibration case calibrated"),
        (replace(calibrated, cases=plan.cases[1:], confirm=(twin,)), "case another-name in .* is the calibration case calibrated"),
    ):
        with pytest.raises(CaseError, match=message):
            control(wrong, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_cases_on_which_nothing_could_be_accepted_are_refused_at_once(plan: ControlPlan, tmp_path: Path) -> None:
    unlabelled = tuple(replace(files, label=None) for files in plan.cases)
    with pytest.raises(InputError, match="no development case has a label"):
        control(replace(plan, cases=unlabelled), tmp_path / "out", silent)
    with pytest.raises(InputError, match="no confirmation case has a label"):
        control(replace(plan, cases=plan.confirm or (), confirm=unlabelled), tmp_path / "out", silent)
    same = replace(plan.cases[1], name=plan.cases[0].name)
    with pytest.raises(InputError, match=f"two development cases are named {same.name}"):
        control(replace(plan, cases=(plan.cases[0], same)), tmp_path / "out", silent)
    with pytest.raises(InputError, match="an artifact named int8-full is timed beside others of such a name"):
        control(replace(plan, floats=(_named(plan.reference, "int8-full"),)), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(plan: ControlPlan, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"holds notes\.txt and no accuracy\.json"):
        control(plan, tmp_path, silent)
    with pytest.raises(InputError, match=r"notes\.txt is a file"):
        control(plan, tmp_path / "notes.txt", silent)
    assert tree(tmp_path) == before


def test_a_choice_that_other_cases_do_not_confirm_is_refused(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    fake.later = 0.05
    result = control(plan, tmp_path, silent)
    assert (result.outcome, result.artifact, result.accepted) == ("refused: not confirmed", None, False)
    assert any(step.accepted for step in result.steps), "on the development cases it was good"
    lines = list(control_lines(result))
    assert lines[0] == "refused: not confirmed"
    assert lines[1].startswith("  - on phantoms (synthetic), the mean Dice drop of WT of 0.0")


def test_without_confirmation_cases_the_result_says_that_it_is_optimistic(plan: ControlPlan, tmp_path: Path) -> None:
    result = control(replace(plan, confirm=None), tmp_path, silent)
    assert (len(result.chosen_on), result.confirmed_on) == (3, ())
    assert any("which is optimistic" in warning for warning in control_warnings(result))
    assert list(control_lines(result))[-1] == "chosen on 3 cases; no other case confirms it"


def test_int8_that_is_not_faster_than_float_is_told(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    fake.p50 = {"fp32": 900.0, "bf16": 410.0, "int8-full": 400.0, CHOSEN: 460.0}
    made: list[Path] = []

    def bf16(folder: Path) -> Artifact:
        made.append(folder)
        return _named(plan.reference, "bf16")

    result = control(replace(plan, make_float=bf16), tmp_path, silent)
    assert made == [tmp_path / "candidates"]
    assert any(warning.startswith("INT8 pays nothing here: bf16 takes 4") for warning in control_warnings(result))


@pytest.mark.parametrize("harm", [dict.fromkeys((f"layer{index}" for index in range(5)), 0.1), {}])
def test_where_nothing_is_accepted_nothing_is_timed(harm: dict[str, float], plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    fake.world.harm, fake.world.floor = harm, 0.0 if harm else 0.1
    result = control(plan, tmp_path, silent)
    assert result.outcome == ("refused: INT8 cannot meet the rule" if harm else "refused: convolutions are not to blame")
    assert (result.artifact, result.decision, fake.benched) == (None, None, [])
    assert len(control_tables(result)) == (2 if harm else 1)
    assert next(iter(control_lines(result))) == result.outcome


def test_damaged_records_are_named_with_what_to_do(plan: ControlPlan, fake: FakeTools, tmp_path: Path) -> None:
    fake.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        control(plan, tmp_path, silent)
    path = tmp_path / "measurements" / "int8-full.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(SpecError, match=r"int8-full\.json is not a valid Measurement") as caught:
        control(plan, tmp_path, silent)
    assert caught.value.hint == f"remove {path}: it is then measured again"
    path.write_text(whole.replace('"keep_float": []', '"keep_float": ["layer1"]'))
    with pytest.raises(SpecError, match=r"is of another candidate \(layer1 in float\)"):
        control(plan, tmp_path, silent)


def exam(index: int, **changes: Any) -> Exam:
    digest = hashlib.sha256(str(index).encode()).hexdigest()
    fields = {"name": f"case-{index}", "sha256": digest, "label_sha256": digest, "origin": "real"} | changes
    return Exam(files=CaseFiles(name=f"case-{index}"), known=CaseInput.model_validate(fields))


def test_enough_cases_are_halved_by_their_hashes_within_each_origin() -> None:
    real = [exam(index) for index in range(21)]
    few = [exam(100 + index, origin="phantom") for index in range(19)]
    unlabelled = [exam(200 + index, label_sha256=None) for index in range(9)]
    development, confirmation = divide([*real, *few, *unlabelled], GateRule())
    assert (len(development), len(confirmation)) == (11 + 19 + 9, 10)
    assert {case.known.origin for case in confirmation} == {"real"}
    assert all(case.known.label_sha256 for case in confirmation)
    other = divide([*unlabelled, *reversed(real), *few], GateRule())
    assert {case.known.name for case in other[1]} == {case.known.name for case in confirmation}, "whatever the order they come in"
    assert divide(real[:19], GateRule())[1] == ()


def test_drift_is_what_a_bench_run_records(tiny_fp32: Artifact, compressed: Compress, cases: tuple[CaseFiles, ...], tmp_path: Path) -> None:
    """The same label maps and the same comparison, one candidate at a time; the reference is segmented once."""
    candidate, lines = compressed("dynamic-range", "openvino"), []
    exams = tuple(examine(files, tiny_fp32.manifest.spec) for files in cases[:2])
    evaluator = CaseEvaluator(
        reference=tiny_fp32, runtime="openvino", exams=exams, threads=2, reference_labels=tmp_path / "reference", progress=lines.append
    )
    drift = evaluator(candidate)
    entries = tuple(Entry(artifact=artifact, runtime="openvino") for artifact in (tiny_fp32, candidate))
    bench = Plan(entries=entries, cases=cases[:2], reference="fp32", baseline="fp32", threads=2, min_runs=2, min_seconds=0.1)
    assert drift == load_run(run_bench(bench, tmp_path / "bench", silent).folder).drift[candidate.manifest.name]
    evaluator(candidate)
    assert [line for line in lines if line.endswith("with fp32")] == ["segmenting 2 cases with fp32"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench", "reference"]


def test_the_layers_are_the_convolutions_in_int8_by_names_that_can_be_kept_float(
    tiny_fp32: Artifact, compressed: Compress, tmp_path: Path
) -> None:
    layers = int8_convolutions(compressed("int8", "openvino"), "openvino", 2)
    assert len(layers) == 18
    assert [layers[0].name, layers[-1].name] == ["encoder1.embedding", "output"]
    assert np.isclose(sum(layer.macs for layer in layers), 1, atol=1e-3)
    assert int8_convolutions(tiny_fp32, "openvino", 2) == ()


def test_an_error_of_a_candidate_ends_the_run_and_is_its_own(plan: ControlPlan, tmp_path: Path) -> None:
    def broken(keep_float: tuple[str, ...], folder: Path) -> Artifact:
        raise EdgeLatupError("no space left")

    with pytest.raises(EdgeLatupError, match="no space left"):
        control(replace(plan, make=broken), tmp_path, silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.json"]
