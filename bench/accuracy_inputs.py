"""What a search is given: cases kept apart, and the record by which a later run knows that it continues the same search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from edge_latup.bench.accuracy_measure import FULL, Exam
from edge_latup.bench.accuracy_records import ControlInputs
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.summary import ORIGINS
from edge_latup.errors import CaseError, InputError
from edge_latup.manifest import SeenCase
from edge_latup.records import read_record, write_record

RECORD_NAME: Final = "accuracy.json"


def divide(exams: Sequence[Exam], rule: GateRule) -> tuple[tuple[Exam, ...], tuple[Exam, ...]]:
    """Development and confirmation cases, of cases that were given together.

    The labelled cases of an origin are halved where either half is enough for the gate's test, in the order of their hashes, which
    says nothing about them; all other cases are for development.
    """
    confirmation: set[str] = set()
    for origin in ORIGINS:
        digests = sorted(exam.known.sha256 for exam in exams if exam.known.origin == origin and exam.known.label_sha256)
        if len(digests) >= 2 * rule.min_cases:
            confirmation.update(digests[1::2])
    chosen_on = tuple(exam for exam in exams if exam.known.sha256 not in confirmation)
    return chosen_on, tuple(exam for exam in exams if exam.known.sha256 in confirmation)


def refuse_overlap(calibration: Iterable[SeenCase], exams: Sequence[Exam]) -> None:
    """Refuse a case that calibrated the candidates, and an exam that is given twice, under whatever names.

    Raises:
        CaseError: as said; the message names both.
    """
    calibrated = {case.sha256: case.name for case in calibration}
    seen: dict[str, Exam] = {}
    for exam in exams:
        where = f"case {exam.known.name} in {exam.files.folder}"
        if exam.known.sha256 in calibrated:
            raise CaseError(f"{where} is the calibration case {calibrated[exam.known.sha256]}", "evaluate on other cases")
        if (other := seen.get(exam.known.sha256)) is not None:
            raise CaseError(
                f"{where} is the same exam as case {other.known.name} in {other.files.folder}",
                "give each exam once: what chooses the layers cannot confirm the choice",
            )
        seen[exam.known.sha256] = exam


def refuse_unusable(development: Sequence[Exam], confirmation: Sequence[Exam]) -> None:
    """Refuse cases on which the gate could never accept anything, before hours are spent on them.

    Raises:
        InputError: a part has no label at all, or two of its cases one name.
    """
    for what, exams in (("development", development), ("confirmation", confirmation)):
        if (exams or what == "development") and not any(exam.known.label_sha256 for exam in exams):
            raise InputError(f"no {what} case has a label, so the gate can accept nothing", "give cases with a label volume")
        names = [exam.known.name for exam in exams]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two {what} cases are named {', '.join(doubles)}", "a label map is known by its case's name: rename one")


def refuse_names(names: Sequence[str]) -> None:
    """Refuse artifacts' names that would collide in the last bench run.

    Raises:
        InputError: as said.
    """
    taken = [name for name in names if name.startswith(FULL.partition("-")[0] + "-") or names.count(name) > 1]
    if taken:
        raise InputError(f"an artifact named {taken[0]} is timed beside others of such a name", "copy it under another name, such as fp32")


def keep_inputs(inputs: ControlInputs, folder: Path) -> None:
    """Write accuracy.json into a new folder; in one that has it, refuse other inputs than it records.

    Raises:
        InputError: the folder holds something else, or a search with other inputs.
        SpecError: accuracy.json is damaged.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        if others := sorted(entry.name for entry in folder.iterdir()):
            raise InputError(
                f"{folder} holds {others[0]} and no {RECORD_NAME}, so it is not the folder of a search", "choose another --out"
            )
        write_record(inputs, path)
        return
    known = read_record(ControlInputs, path)
    # Compared as they lie on disk: a tuple in the settings comes back as a list.
    asked = ControlInputs.model_validate_json(inputs.model_dump_json())
    if changed := [name for name in ControlInputs.model_fields if getattr(known, name) != getattr(asked, name)]:
        raise InputError(
            f"{folder} holds a search with other inputs: {', '.join(changed)} changed",
            "choose another --out for a new search, or repeat the command of the first run to continue",
        )
