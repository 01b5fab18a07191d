"""What a training run is made of; written beside the checkpoint so that it can be run again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edge_latup.records import Record


class Phase(Record):
    """Steps on patches of one size. Instance norm sees the whole tile, so the last phase should use the deployed crop."""

    patch: int = Field(ge=8, multiple_of=8)
    steps: int = Field(ge=1)


class TrainingRecipe(Record):
    """Every parameter of a run. The random numbers of step i depend on (seed, i) alone, so a resumed run repeats an unbroken one."""

    seed: int = 0
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)] = (Phase(patch=64, steps=2000),)
    learning_rate: float = Field(1e-3, gt=0)
    final_learning_rate: float = Field(1e-5, gt=0)
    warm_up_steps: int = Field(50, ge=0)
    weight_average: float = Field(0.995, ge=0, lt=1)
    """Decay of the exponential moving average of the weights, which is what is saved."""
    cross_entropy_weight: float = Field(1.0, ge=0)
    l2: float = Field(0.0, ge=0)
    """Coefficient of sum(w^2) over the 11 published kernels; the published value, for 200 epochs, is 0.02."""
    grafts: int = Field(0, ge=0)
    real_share: float = Field(0.4, gt=0, lt=1)
    save_every: int = Field(100, ge=1)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def patch_at(self, step: int) -> int:
        """Patch side of a step."""
        for phase in self.phases:
            if step < phase.steps:
                return phase.patch
            step -= phase.steps
        return self.phases[-1].patch


class TrainingRecord(Record):
    """training.json beside a checkpoint: how it was made, and what it scored where it had never looked."""

    recipe: TrainingRecipe
    started_from_sha256: str | None = None
    """Weights the run began with; None for a fresh start."""
    held_out_dice: dict[str, dict[str, float]] = {}
    versions: dict[str, str] = {}
