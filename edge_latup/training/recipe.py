"""What a training run is made of; written beside the checkpoint so that it can be run again."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from edge_latup.records import Record

SMALLEST_PATCH: Final = 16
"""A patch of 8 leaves 2^3 voxels at the deepest 3^3 convolutions, whose bf16 weight gradient then comes from memory that was never
written (torch 2.13 with oneDNN, measured): another gradient each time, sometimes NaN."""


class Phase(Record):
    """Steps on patches of one size. Instance norm sees the whole tile, so the last phase should use the deployed crop."""

    patch: int = Field(ge=SMALLEST_PATCH, multiple_of=8)
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
    cross_entropy_weight: float = Field(13.0, ge=0)
    """As much as the class weights of the Dice loss together: cross-entropy is what punishes false tumour where a patch has none."""
    dice_smoothing: float = Field(1e-5, gt=0)
    """Voxels added to both sides of each Dice ratio. With next to none, as published, false voxels of a class that a patch has none of cost
    nothing, and on a patch as large as a head cross-entropy is too weak to punish them."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Instead of the network's own rate; 0 for a run too short to over-fit."""
    l2: float = Field(0.0, ge=0)
    """Coefficient of sum(w^2) over the 11 published kernels; the published value, for 200 epochs, is 0.02."""
    grafts: int = Field(0, ge=0)
    real_share: float = Field(0.4, gt=0, lt=1)
    head_share: float = Field(0.0, ge=0, le=1)
    """Share of steps on a whole head, as the policy brain-crop shows it, instead of a patch of the deployed crop. Instance norms and
    attention see the whole tile, so patches of the deployed size do not teach a network what a larger tile looks like."""
    foreground_share: float = Field(0.6, ge=0, le=1)
    """Share of patches centred near a tumour voxel; too high, and the network never sees the healthy tissue it must leave alone."""
    intensity_variation: float = Field(0.6, ge=0)
    """Scale of the random gamma, gain and offset."""
    stop_after: int | None = Field(None, ge=1)
    """Step at which the run ends, before its schedule does; None runs it all."""
    save_every: int = Field(100, ge=1)

    @property
    def last_step(self) -> int:
        """Step at which the run ends."""
        return self.steps if self.stop_after is None else min(self.stop_after, self.steps)

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
