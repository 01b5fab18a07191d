"""A whole training session: read, train, save, score the held-out cases, and write down what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch

from edge_latup.artifact import sha256_of
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import Case, read_case
from edge_latup.errors import CaseError, SpecError
from edge_latup.manifest import SeenCase, SeenCases
from edge_latup.metrics.overlap import dice_by_region
from edge_latup.networks.base import SegmentationNetwork
from edge_latup.networks.build import SEEN_NAME, WEIGHTS_NAME, load_checkpoint, save_checkpoint, seen_cases
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.base import Batch
from edge_latup.segmentation.engine import segment
from edge_latup.spec import ModelSpec
from edge_latup.training.data import TrainingCase, load_cases, seen_case
from edge_latup.training.loop import Run, check_run, is_begun, start, train
from edge_latup.training.recipe import TrainingRecipe, TrainingRecord
from edge_latup.versions import versions_of

TRAINING_NAME: Final = "training.json"
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Folders of labelled cases, and the checkpoint to start from."""

    synthetic: Sequence[Path] = ()
    real: Sequence[Path] = ()
    held_out: Sequence[Path] = ()
    start_from: Path | None = None
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Where progress goes."""

    note: Callable[[str], None] = field(default=lambda _: None)
    on_step: Callable[[int, float], None] = field(default=lambda step, loss: None)


def _start_from(run: Run, checkpoint: Path) -> None:
    network, _ = load_checkpoint(checkpoint)
    run.network.load_state_dict(network.state_dict())
    run.average.update({name: p.detach().clone() for name, p in run.network.named_parameters()})


def _held_out(folders: Sequence[Path], spec: ModelSpec, seen: Sequence[SeenCase]) -> Iterator[Case]:
    """Every case of the folders, one at a time.

    Raises:
        CaseError: a case cannot be read, or was trained on (recognised by its voxels, whatever it is called).
    """
    trained = {case.sha256 for case in seen}
    for files in (case for folder in folders for case in find_cases(folder)):
        case = read_case(files, spec.modalities)
        if seen_case(case).sha256 in trained:
            raise CaseError(
                f"held-out case {case.name} in {files.folder} was trained on", "take it out of --held-out or of the training cases"
            )
        yield case


class _Network:
    """A network in the place of an opened artifact."""

    input_shape = (-1,) * 5

    def __init__(self, network: SegmentationNetwork) -> None:
        self._network = network

    def infer(self, batch: Batch) -> Batch:
        """Probabilities of a batch."""
        with torch.inference_mode():
            found: Batch = self._network(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        return found


def score(
    network: SegmentationNetwork, spec: ModelSpec, folders: Sequence[Path], seen: Sequence[SeenCase], note: Callable[[str], None]
) -> Scores:
    """Dice of every region that the network can find, of every labelled case by name, segmented as the spec says, in PyTorch float32.

    Raises:
        CaseError: a held-out case was trained on.
    """
    scores: Scores = {}
    for case in _held_out(folders, spec, seen):
        if case.label is None:
            note(f"held out {case.name}: no label, not scored")
            continue
        label = case.grid.reorient(case.label, spec.orientation)
        predicted = case.grid.reorient(segment(_Network(network), spec, case).label, spec.orientation)
        scores[case.name] = {str(region): value for region, value in dice_by_region(predicted, label, spec.found_regions).items()}
        note(f"held out {case.name}: " + ", ".join(f"{region} {value:.4f}" for region, value in scores[case.name].items()))
    return scores


def _seen(cases: Sequence[TrainingCase], folder: Path, start_from: Path | None) -> tuple[SeenCase, ...]:
    """Each exam once, whatever copies of it are trained on: now, in earlier sessions of this run, and by the weights it began with."""
    earlier = (*(seen_cases(start_from) if start_from is not None else ()), *(seen_cases(folder) if is_begun(folder) else ()))
    return tuple({case.sha256: case for case in (*earlier, *(case.seen for case in cases))}.values())


def _origin(checkpoint: Path | None, spec: ModelSpec) -> str | None:
    """SHA-256 of the weights to start from."""
    if checkpoint is None:
        return None
    _, found = load_checkpoint(checkpoint)
    if found.network != spec.network:
        raise SpecError(f"{checkpoint} is another network than the one to train", "give the --width it was trained with")
    return sha256_of(checkpoint / WEIGHTS_NAME)


def _begin(spec: ModelSpec, recipe: TrainingRecipe, folder: Path, start_from: Path | None) -> TrainingRecord:
    """The run's record before its end; a resumed run keeps the origin it was begun with."""
    check_run(spec, recipe, folder)
    origin = _origin(start_from, spec)
    if is_begun(folder) and (folder / TRAINING_NAME).is_file():
        begun_with = read_record(TrainingRecord, folder / TRAINING_NAME).started_from_sha256
        if origin not in (None, begun_with):
            raise SpecError(f"{folder} holds a run that began with other weights than {start_from}", "choose a new --out")
        origin = begun_with
    return TrainingRecord(recipe=recipe, started_from_sha256=origin, versions=versions_of("edge-latup", "torch"))


def run_training(spec: ModelSpec, recipe: TrainingRecipe, folder: Path, sources: Sources, listeners: Listeners) -> TrainingRecord:
    """Train (or resume) in `folder`; leaves model.safetensors, spec.json, seen.json and training.json there.

    Raises:
        CaseError: a case cannot be used, or is both trained on and held out.
        SpecError: the folder holds another run, or the starting checkpoint is another network.
    """
    if sources.threads:
        torch.set_num_threads(sources.threads)
    record = _begin(spec, recipe, folder, sources.start_from)
    cases = load_cases(
        sources.synthetic, sources.real, spec, grafts=recipe.grafts, real_share=recipe.real_share, seed=recipe.seed,
        progress=lambda name: listeners.note(f"read {name}"), head_share=recipe.head_share,
    )  # fmt: skip
    seen = _seen(cases, folder, sources.start_from)
    # Refused now rather than after hours of training.
    for _ in _held_out(sources.held_out, spec, seen):
        pass
    run = start(spec, recipe, folder)
    if sources.start_from is not None and run.step == 0:
        _start_from(run, sources.start_from)
    # Written before the first step: a session that is cut off has shaped the weights too.
    write_record(SeenCases(cases=seen), folder / SEEN_NAME)
    write_record(record, folder / TRAINING_NAME)
    network = train(run, cases, listeners.on_step)
    save_checkpoint(folder, network, spec)
    scored = record.model_copy(update={"held_out_dice": score(network, spec, sources.held_out, seen, listeners.note)})
    write_record(scored, folder / TRAINING_NAME)
    return scored
