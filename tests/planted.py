"""A made-up network in which known layers ruin the output when they are in INT8. None of its figures was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sample_run import Plan as SampleRun
from sample_run import drift_record, region_drift, run_record, timing_row, write_run
from tiny_models import pointwise_artifact

from edge_latup.artifact import Artifact
from edge_latup.bench.accuracy_control import Found, Search
from edge_latup.bench.accuracy_records import Layer, Measurement
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.records import CaseDrift, DriftRecord
from edge_latup.bench.run import Plan
from edge_latup.bench.store import RunStore
from edge_latup.cases.identity import CaseOrigin
from edge_latup.manifest import Step
from edge_latup.spec import REGIONS

ORIGINS: Final[dict[str, CaseOrigin]] = {"real-1": "real", "real-2": "real", "phantom-1": "phantom"}
RULE: Final = GateRule(resamples=1000)
"""Three cases are too few for its test: the mean drop is held against 0.005, a case may lose 0.02 in none."""


@dataclass(kw_only=True)
class Planted:
    """Layers "layer0", "layer1", ... of which some cost Dice in INT8.

    harm: Dice that each harmful layer costs in INT8. cap: the most that is lost, however many are. every: what each layer costs.
    """

    layers: int
    harm: Mapping[str, float] = field(default_factory=dict)
    cap: float = 1.0
    every: float = 1e-5
    floor: float = 0.0
    unexecuted: str | None = None
    measured: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the network."""
        return tuple(f"layer{index}" for index in range(self.layers))

    @property
    def known(self) -> tuple[Layer, ...]:
        """Equal shares of the multiply-accumulates."""
        return tuple(Layer(name=name, macs=1 / self.layers) for name in self.names)

    def drop(self, keep_float: tuple[str, ...]) -> float:
        """What the candidate loses in every region of every case."""
        lost = sum(self.harm.get(name, 0.0) + self.every for name in self.names if name not in keep_float)
        return min(self.cap, self.floor + lost)

    def drift(self, keep_float: tuple[str, ...], origins: Mapping[str, CaseOrigin] = ORIGINS) -> DriftRecord:
        """The candidate's drift record."""
        sample = SampleRun(origins=origins)
        row, reference = timing_row("int8"), timing_row("fp32")
        drop = self.drop(keep_float)
        cases = tuple(
            CaseDrift(case=case, origin=origin, regions=dict.fromkeys(REGIONS, region_drift(drop))) for case, origin in origins.items()
        )
        return drift_record(row, reference, sample).model_copy(update={"cases": cases})

    def measure(self, keep_float: tuple[str, ...]) -> Measurement:
        """As a search asks for it; what is asked for is noted."""
        self.measured.append(keep_float)
        share = 1 - len(keep_float) / self.layers
        return Measurement(keep_float=keep_float, int8_macs=share, unexecuted=self.unexecuted, drift=self.drift(keep_float))

    def search(self, **changes: Any) -> Found:
        """Search in it."""
        fields: dict[str, Any] = {"layers": lambda: self.known, "measure": self.measure, "rule": RULE, "tell": lambda line: None}
        return Search(**(fields | changes)).run()

    def make(self, keep_float: tuple[str, ...], folder: Path) -> Artifact:
        """An artifact that remembers which layers are in float."""
        step = Step(operation="quantize", parameters={"keep_float": list(keep_float)})
        return pointwise_artifact(folder, (16, 16, 16), precision="int8", recipe=(step,))


@dataclass(kw_only=True)
class FakeTools:
    """The tools of a run on planted layers: artifacts are real folders, nothing is segmented or timed.

    dies_at: the evaluation, counted over all runs, in which the machine goes down. drops: what artifacts lose in the last bench run;
    the candidates of the search lose there what they lose in it, plus `later`.
    """

    world: Planted
    dies_at: int | None = None
    later: float = 0.0
    p50: Mapping[str, float] = field(default_factory=dict)
    evaluated: list[str] = field(default_factory=list)
    benched: list[Plan] = field(default_factory=list)

    def evaluator(self, **arguments: Any) -> Any:
        """An evaluation that may be the last."""
        origins = {exam.known.name: exam.known.origin for exam in arguments["exams"]}

        def evaluate(artifact: Artifact) -> DriftRecord:
            if self.dies_at == len(self.evaluated):
                self.dies_at = None
                raise KeyboardInterrupt
            self.evaluated.append(artifact.manifest.name)
            return self.world.drift(kept_by(artifact), origins)

        return evaluate

    def layers(self, *_: Any) -> tuple[Layer, ...]:
        """The planted ones."""
        return self.world.known

    def bench(self, plan: Plan, folder: Path, progress: Any) -> RunStore:
        """A made-up run with a row for every entry."""
        self.benched.append(plan)
        origins: dict[str, CaseOrigin] = {files.name: "phantom" for files in plan.cases}
        names = [entry.name for entry in plan.entries]
        rows = {name: {"median_ms": self.p50.get(name, 500.0), "precision": "fp32"} for name in names}
        lost = {e.name: self.world.drop(kept_by(e.artifact)) + self.later for e in plan.entries if e.artifact.manifest.precision == "int8"}
        run = {"reference": plan.reference, "baseline": plan.baseline, "pictured_case": None}
        sample = SampleRun(rows=rows, drops=lost, origins=origins, run=run)
        reference = timing_row(plan.reference)
        store = RunStore(write_run(folder, _of_reference(sample, plan.reference)))
        for name in names:
            if name != plan.reference:
                row = store.read_row(name)
                store.write_drift(drift_record(row, reference, sample))
        store.write_run(run_record(sample))
        return store


def _of_reference(sample: SampleRun, reference: str) -> SampleRun:
    """`sample_run` takes its own reference's row; this run has another."""
    return SampleRun(rows={"pytorch-fp32": {}} | dict(sample.rows), drops=sample.drops, origins=sample.origins, run={"pictured_case": None})


def kept_by(artifact: Artifact) -> tuple[str, ...]:
    """The layers a planted artifact leaves in float."""
    return tuple(artifact.manifest.recipe[-1].parameters["keep_float"])
