"""A session says what it did: what it read, what its weights have seen, and never scores what it trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from support import NAMES_2021, intensities, tree, write_case, write_nifti
from tiny_network import SEEN, tiny_spec, write_checkpoint

from edge_latup.artifact import sha256_of
from edge_latup.cases.cohort import write_cohort
from edge_latup.errors import CaseError, EdgeLatupError, SpecError
from edge_latup.networks.build import SEEN_NAME, SPEC_NAME, WEIGHTS_NAME, load_checkpoint, seen_cases
from edge_latup.spec import ModelSpec
from edge_latup.training.loop import CURVE_NAME, RECIPE_NAME, STATE_NAME
from edge_latup.training.recipe import Phase, TrainingRecipe, TrainingRecord
from edge_latup.training.session import TRAINING_NAME, Listeners, Sources, run_training, score

SPEC = tiny_spec()
RECIPE = TrainingRecipe(phases=(Phase(patch=16, steps=2),), save_every=1)


class CutOffError(Exception):
    """The session ends here."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three different labelled cases."""
    out = tmp_path_factory.mktemp("cohort")
    return [out / files.name for files in write_cohort(out, cases=3, seed=3, shape=(18, 17, 16))]


def run(
    folder: Path, *, spec: ModelSpec = SPEC, recipe: TrainingRecipe = RECIPE, notes: list[str] | None = None, **sources: object
) -> TrainingRecord:
    listeners = Listeners(note=(notes if notes is not None else []).append)
    return run_training(spec, recipe, folder, Sources(**sources), listeners)  # type: ignore[arg-type]


def cut_off(folder: Path, **sources: object) -> None:
    """Begin a run and end the session after its first step was saved."""

    def stop(step: int, _: float) -> None:
        if step == 2:
            raise CutOffError

    with pytest.raises(CutOffError):
        run_training(SPEC, RECIPE, folder, Sources(**sources), Listeners(on_step=stop))  # type: ignore[arg-type]


def names_seen(folder: Path) -> list[str]:
    return [case.name for case in seen_cases(folder)]


def refused(folder: Path, kind: type[EdgeLatupError], message: str, **arguments: object) -> None:
    """Refused with a message and a remedy, and the run folder is as it was."""
    before = tree(folder) if folder.exists() else {}
    with pytest.raises(kind) as caught:
        run(folder, **arguments)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.hint
    assert (tree(folder) if folder.exists() else {}) == before


def test_a_run_leaves_a_checkpoint_and_its_records(tmp_path: Path, cohort: list[Path]) -> None:
    notes: list[str] = []
    record = run(tmp_path, synthetic=cohort[:1], held_out=cohort[1:2], notes=notes)
    assert set(tree(tmp_path)) == {WEIGHTS_NAME, SPEC_NAME, SEEN_NAME, TRAINING_NAME, RECIPE_NAME, CURVE_NAME, STATE_NAME}
    network, spec = load_checkpoint(tmp_path)
    assert spec == SPEC
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    assert TrainingRecord.model_validate_json((tmp_path / TRAINING_NAME).read_text()) == record
    assert record.recipe == RECIPE
    assert record.started_from_sha256 is None
    assert {"python", "torch", "edge-latup"} <= record.versions.keys()
    assert list(record.held_out_dice) == [cohort[1].name]
    assert record.held_out_dice[cohort[1].name].keys() == {"WT", "TC", "ET"}
    assert notes[0] == f"read {cohort[0].name}"
    assert notes[-1].startswith(f"held out {cohort[1].name}: WT 0.")


def test_the_scores_are_those_of_the_saved_checkpoint(tmp_path: Path, cohort: list[Path]) -> None:
    record = run(tmp_path, synthetic=cohort[:1], held_out=cohort[1:])
    network, spec = load_checkpoint(tmp_path)
    assert score(network, spec, cohort[1:], (), lambda _: None) == record.held_out_dice


def test_every_exam_is_listed_once_whatever_copies_were_trained_on(tmp_path: Path, cohort: list[Path]) -> None:
    copy = shutil.copytree(cohort[0], tmp_path / "renamed")
    run(tmp_path / "run", synthetic=[cohort[0], cohort[1]], real=[copy])
    seen = seen_cases(tmp_path / "run")
    assert len(seen) == len({case.sha256 for case in seen}) == 2


def test_a_case_that_is_trained_on_and_held_out_is_refused_before_anything_is_written(tmp_path: Path, cohort: list[Path]) -> None:
    message = f"held-out case {cohort[0].name} in {cohort[0]} was trained on"
    refused(tmp_path / "run", CaseError, message, synthetic=cohort, held_out=[cohort[0]])
    assert not (tmp_path / "run").exists()


def test_a_renamed_copy_is_recognised_by_its_voxels(tmp_path: Path, cohort: list[Path]) -> None:
    copy = tmp_path / "stranger"
    copy.mkdir()
    for path in cohort[0].iterdir():
        shutil.copyfile(path, copy / path.name.replace(cohort[0].name, "stranger"))
    refused(tmp_path / "run", CaseError, "held-out case stranger", synthetic=cohort[:1], held_out=[copy])
    assert not (tmp_path / "run").exists()


def test_a_case_the_starting_weights_were_trained_on_is_refused_too(tmp_path: Path, cohort: list[Path]) -> None:
    run(tmp_path / "first", synthetic=cohort[:1])
    refused(tmp_path / "second", CaseError, "was trained on", synthetic=cohort[1:2], start_from=tmp_path / "first", held_out=cohort[:1])


def test_scoring_itself_refuses_what_was_seen(tmp_path: Path, cohort: list[Path]) -> None:
    run(tmp_path, synthetic=cohort[:1])
    network, spec = load_checkpoint(tmp_path)
    with pytest.raises(CaseError, match="was trained on"):
        score(network, spec, cohort, seen_cases(tmp_path), lambda _: None)


def test_a_held_out_case_without_a_label_is_not_scored_and_said_so(tmp_path: Path, cohort: list[Path]) -> None:
    unlabelled = write_case(tmp_path / "bare", {key: ending for key, ending in NAMES_2021.items() if key != "label"})
    notes: list[str] = []
    record = run(tmp_path / "run", synthetic=cohort[:1], held_out=[unlabelled], notes=notes)
    assert record.held_out_dice == {}
    assert notes[-1] == "held out bare: no label, not scored"


def test_tumour_outside_the_crop_counts_as_missed(tmp_path: Path) -> None:
    """Only the far corner of the volume is tumour; the crop does not reach it."""
    case = write_case(tmp_path / "corner", {key: ending for key, ending in NAMES_2021.items() if key != "label"})
    label = intensities(0) * 0
    label[0, 0, 0] = 4
    write_nifti(case / "corner_seg.nii.gz", label)
    network, _ = load_checkpoint(write_checkpoint(tmp_path / "checkpoint"))
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # type: ignore[union-attr]
    scores = score(network, SPEC, [case], (), lambda _: None)
    assert scores == {"corner": {"WT": 0.0, "TC": 0.0, "ET": 0.0}}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "no training case given"),
        ({"synthetic": [Path("nowhere")]}, "nowhere does not exist"),
        ({"held_out": [Path("nowhere")]}, "nowhere does not exist"),
    ],
)
def test_without_cases_nothing_is_written(tmp_path: Path, cohort: list[Path], sources: dict[str, object], message: str) -> None:
    sources = {"synthetic": cohort[:1], **sources} if "held_out" in sources else sources
    refused(tmp_path / "run", CaseError, message, **sources)
    assert not (tmp_path / "run").exists()


def test_a_run_begins_with_the_weights_it_is_given(tmp_path: Path, cohort: list[Path]) -> None:
    origin = write_checkpoint(tmp_path / "origin")
    still = RECIPE.model_copy(update={"learning_rate": 1e-12, "final_learning_rate": 1e-12})
    record = run(tmp_path / "run", recipe=still, synthetic=cohort[:1], start_from=origin)
    assert record.started_from_sha256 == sha256_of(origin / WEIGHTS_NAME)
    before, after = (load_checkpoint(folder)[0].state_dict() for folder in (origin, tmp_path / "run"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)


def test_what_the_starting_weights_have_seen_is_seen(tmp_path: Path, cohort: list[Path]) -> None:
    run(tmp_path / "run", synthetic=cohort[:1], start_from=write_checkpoint(tmp_path / "origin"))
    assert names_seen(tmp_path / "run") == [SEEN[0].name, cohort[0].name]


def test_weights_of_another_network_or_none_are_refused(tmp_path: Path, cohort: list[Path]) -> None:
    other = write_checkpoint(tmp_path / "other", tiny_spec(width=16))
    refused(tmp_path / "run", SpecError, "is another network than the one to train", synthetic=cohort[:1], start_from=other)
    refused(tmp_path / "run", SpecError, "is not a checkpoint", synthetic=cohort[:1], start_from=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, cohort: list[Path]) -> None:
    cut_off(tmp_path / "resumed", synthetic=cohort[:2])
    for folder in (tmp_path / "resumed", tmp_path / "unbroken"):
        run(folder, synthetic=cohort[:2])
    one, other = (json.loads((tmp_path / name / CURVE_NAME).read_text()) for name in ("resumed", "unbroken"))
    assert one == other


def test_a_session_that_was_cut_off_has_been_seen_by_the_weights(tmp_path: Path, cohort: list[Path]) -> None:
    cut_off(tmp_path / "run", synthetic=cohort[:1])
    refused(tmp_path / "run", CaseError, "was trained on", synthetic=cohort[1:2], held_out=cohort[:1])
    run(tmp_path / "run", synthetic=cohort[1:2])
    assert set(names_seen(tmp_path / "run")) == {cohort[0].name, cohort[1].name}


def test_a_resumed_run_keeps_its_origin(tmp_path: Path, cohort: list[Path]) -> None:
    origin, other = (write_checkpoint(tmp_path / f"origin{seed}", seed=seed) for seed in (0, 1))
    cut_off(tmp_path / "run", synthetic=cohort[:1], start_from=origin)
    message = "holds a run that began with other weights than"
    refused(tmp_path / "run", SpecError, message, synthetic=cohort[:1], start_from=other)
    record = run(tmp_path / "run", synthetic=cohort[:1])
    assert record.started_from_sha256 == sha256_of(origin / WEIGHTS_NAME)
    assert SEEN[0].name in names_seen(tmp_path / "run")


def test_a_fresh_run_cannot_be_given_an_origin_afterwards(tmp_path: Path, cohort: list[Path]) -> None:
    cut_off(tmp_path / "run", synthetic=cohort[:1])
    origin = write_checkpoint(tmp_path / "origin")
    refused(tmp_path / "run", SpecError, "began with other weights", synthetic=cohort[:1], start_from=origin)


def test_another_recipe_is_refused_before_any_case_is_read(tmp_path: Path, cohort: list[Path]) -> None:
    cut_off(tmp_path / "run", synthetic=cohort[:1])
    other = RECIPE.model_copy(update={"seed": 1})
    refused(tmp_path / "run", SpecError, "holds a run with another recipe", recipe=other, synthetic=[Path("nowhere")])


def test_a_finished_checkpoint_is_not_written_over(tmp_path: Path, cohort: list[Path]) -> None:
    write_checkpoint(tmp_path / "run")
    refused(tmp_path / "run", SpecError, "holds a checkpoint and no run to resume", synthetic=cohort[:1])
