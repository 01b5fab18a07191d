"""What is kept of one network's whole road beside the records of its bench run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from edge_latup.bench.case.records import CaseRow
from edge_latup.bench.gate_records import GateDecision
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.errors import SpecError
from edge_latup.records import Record, read_record
from edge_latup.spec import ModelSpec

NAME: Final = "network.json"
RUN, OTHER_RUN = "records", "records-onnxruntime"
"""Folders of the bench runs: in OpenVINO, and where it was asked for, in ONNX Runtime."""
ONE_VIEW, ALL_VIEWS = "one view", "all views"


class NetworkRecord(Record):
    """network.json: one network, what the gate said of its forms, and one case segmented with the fastest of them."""

    schema_version: Literal[1] = 1
    source: str
    """Name of the checkpoint, model or artifact it came from."""
    spec: ModelSpec
    parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    """Multiply-accumulates of one input, counted from the exported graph."""
    input_shape: tuple[int, ...]
    decisions: tuple[GateDecision, ...]
    other_decisions: tuple[GateDecision, ...] = ()
    """On the forms that ran in ONNX Runtime, against its own FP32."""
    chosen: str
    """The fastest form that the gate accepts, or the FP32 one."""
    cases: tuple[CaseRow, ...]
    """The first evaluated case, from files to label map: FP32 and the chosen form with one view, then the chosen one with all its views."""


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """The record and the bench runs that belong to it; `other` is the one in ONNX Runtime."""

    record: NetworkRecord
    run: LoadedRun
    other: LoadedRun | None = None

    @property
    def judged(self) -> list[tuple[LoadedRun, tuple[GateDecision, ...]]]:
        """Each run with what the gate said of its forms."""
        runs = [(self.run, self.record.decisions)]
        return runs if self.other is None else [*runs, (self.other, self.record.other_decisions)]


def load_network(folder: Path) -> LoadedNetwork:
    """Read what `edge-latup bench-network` wrote to a folder.

    Raises:
        SpecError: it holds no finished one, or its records do not belong together.
    """
    if not (folder / NAME).is_file():
        raise SpecError(f"{folder} holds no {NAME}", "name the --out of a finished edge-latup bench-network")
    record, run = read_record(NetworkRecord, folder / NAME), load_run(folder / RUN)
    if record.chosen not in run.rows:
        raise SpecError(f"{folder / NAME} chose {record.chosen}, which its bench run does not hold", "run edge-latup bench-network again")
    other = load_run(folder / OTHER_RUN) if record.other_decisions else None
    return LoadedNetwork(record=record, run=run, other=other)
