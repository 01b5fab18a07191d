"""Records of a sweep: what was asked, and one row for every cell, measured or not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edge_latup.bench.records import TimingRow
from edge_latup.manifest import RuntimeName, Sha256
from edge_latup.records import Record
from edge_latup.targets.host import Host
from edge_latup.targets.isa import Dispatch, IsaName


class CellKey(Record):
    """One cell of a sweep. An artifact stands for its precision."""

    artifact: str
    runtime: RuntimeName
    threads: int = Field(ge=1)
    isa: IsaName = "native"

    @property
    def text(self) -> str:
        """As it is named in progress lines and files."""
        return f"{self.artifact}@{self.runtime}-{self.threads}-{self.isa}"


class SweepRow(Record):
    """What became of one cell.

    "refused": this software or the runtime said why it does not do this here. "failed": the worker crashed.
    """

    schema_version: Literal[1] = 1
    cell: CellKey
    artifact_sha256: Sha256
    status: Literal["measured", "refused", "failed"]
    timing: TimingRow | None = None
    reason: str = ""
    """Why there is no timing."""
    dispatch: Dispatch | None = None
    """What oneDNN told while the model was compiled; None for a runtime without it."""


class SweepRecord(Record):
    """What a sweep was asked to do; written first, as sweep.json, and grown when the sweep is continued with further cells."""

    schema_version: Literal[1] = 1
    started: str
    command: str
    host: Host
    versions: dict[str, str]
    artifacts: dict[str, Sha256]
    cells: tuple[CellKey, ...]
    drift_run: str | None = None
    """The bench run whose drift records were copied."""
    reference: str | None = None
    """The artifact that drift was measured against, where it is among those of the sweep."""
    notes: tuple[str, ...] = ()
