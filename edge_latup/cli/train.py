"""`edge-latup train`: train LATUP-Net on labelled cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.cli.output import output
from edge_latup.errors import InputError
from edge_latup.spec import ModelSpec, NetworkSpec

if TYPE_CHECKING:
    from edge_latup.training.recipe import Phase


def _phase(text: str) -> Phase:
    from edge_latup.training.recipe import Phase

    patch, _, steps = text.partition(":")
    if not (patch.isdigit() and steps.isdigit() and int(steps) and int(patch) and int(patch) % 8 == 0):
        raise InputError(f"--phase {text!r} is not PATCH:STEPS", "write a patch side that is a multiple of 8 and a number of steps: --phase 64:2000")
    return Phase(patch=int(patch), steps=int(steps))


def train(
    out: Annotated[Path, typer.Option(help="Run folder: checkpoint, recipe, curve and state. A run found there is resumed.")],
    cases: Annotated[list[Path] | None, typer.Option(help="Folder of labelled synthetic cases; may be repeated.")] = None,
    real_cases: Annotated[list[Path] | None, typer.Option(help="Folder of labelled real cases; may be repeated.")] = None,
    held_out: Annotated[list[Path] | None, typer.Option(help="Labelled cases never trained on, scored at the end; may be repeated.")] = None,
    phase: Annotated[list[str] | None, typer.Option(help="PATCH:STEPS; may be repeated. End on the deployed crop.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="Checkpoint folder whose weights to start from.")] = None,
    width: Annotated[int, typer.Option(help="Channels of the first stage; 32 is the published network.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's rate after warm-up.")] = 1e-3,
    final_learning_rate: Annotated[float, typer.Option(help="Rate at the last step (cosine decay).")] = 1e-5,
    l2: Annotated[float, typer.Option(help="L2 coefficient of the 11 published kernels (published: 0.02 for 200 epochs).")] = 0.0,
    grafts: Annotated[int, typer.Option(help="Copies of each real case with one more, synthetic, lesion.")] = 0,
    real_share: Annotated[float, typer.Option(help="Share of patches drawn from the real cases.")] = 0.4,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and options, same patches.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to PyTorch.")] = 0,
) -> None:
    """Train LATUP-Net; resumes the run found in --out, saves the averaged weights as a checkpoint folder."""
    from edge_latup.training.recipe import TrainingRecipe
    from edge_latup.training.session import Listeners, Sources, run_training

    if width < 8 or width % 8:
        raise InputError(f"--width {width} is not a positive multiple of 8", "squeeze-and-excitation divides the channels by 8: try 16 or 32")
    recipe = TrainingRecipe(
        seed=seed, phases=tuple(_phase(text) for text in phase or ["64:2000"]), learning_rate=learning_rate,
        final_learning_rate=final_learning_rate, l2=l2, grafts=grafts, real_share=real_share,
    )  # fmt: skip
    spec = ModelSpec(name="latup-net", network=NetworkSpec(width=width))
    sources = Sources(synthetic=cases or [], real=real_cases or [], held_out=held_out or [], start_from=start_from, threads=threads)
    with output.progress("training", recipe.steps) as ticker:
        listeners = Listeners(note=output.note, on_step=lambda step, loss: ticker.update(step, f"loss {loss:.3f}"))
        record = run_training(spec, recipe, out, sources, listeners)
    output.result(record.model_dump(mode="json"), f"checkpoint in {out}")
    rows = [[name, *(f"{value:.4f}" for value in scores.values())] for name, scores in record.held_out_dice.items()]
    if rows:
        output.table(f"Held-out Dice after {recipe.steps} steps", ["case", "WT", "TC", "ET"], rows)
