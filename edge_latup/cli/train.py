"""`edge-latup train`: train a network on labelled cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.spec import ModelSpec
    from edge_latup.training.recipe import Phase

LATUP_NET: Final = "latup-net"


def _phase(text: str) -> Phase:
    from edge_latup.training.recipe import SMALLEST_PATCH, Phase

    patch, _, steps = text.partition(":")
    if not (patch.isdecimal() and steps.isdecimal() and int(steps)) or int(patch) < SMALLEST_PATCH or int(patch) % 8:
        hint = f"write a patch side, a multiple of 8 from {SMALLEST_PATCH} on, and a number of steps: --phase 64:2000"
        raise InputError(f"--phase {text!r} is not PATCH:STEPS", hint)
    return Phase(patch=int(patch), steps=int(steps))


def _spec(name: str, width: int | None, folders: list[Path]) -> ModelSpec:
    """The model spec to train, from the index of networks; its histogram reference is made of the cases it is trained on."""
    from edge_latup.export.network_index import known_network
    from edge_latup.spec import NetworkSpec

    known = known_network(name)
    if name == LATUP_NET:
        return known.spec.model_copy(update={"network": NetworkSpec(width=width or 32)})
    if width is not None:
        raise InputError(f"--width is LATUP-Net's, {name} has none", "leave it out")
    spec = known.trained_spec
    if spec != known.spec:
        output.note(f"{name}: a background class is added, which a softmax over tumour classes cannot express")
    if not known.learns_histogram:
        return spec
    from edge_latup.training.data import learnt_reference

    output.note("learning the histogram reference from the training cases")
    return spec.model_copy(update={"histogram": learnt_reference(folders, spec)})


def train(
    out: Annotated[Path, typer.Option(help="Run folder: checkpoint, recipe, curve and state. A run found there is resumed.")],
    cases: Annotated[list[Path] | None, typer.Option(help="Folder of labelled synthetic cases; may be repeated.")] = None,
    real_cases: Annotated[list[Path] | None, typer.Option(help="Folder of labelled real cases; may be repeated.")] = None,
    held_out: Annotated[list[Path] | None, typer.Option(help="Labelled cases not trained on, scored at the end; may be repeated.")] = None,
    phase: Annotated[list[str] | None, typer.Option(help="PATCH:STEPS; may be repeated. End on the deployed crop.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="Checkpoint folder whose weights to start from.")] = None,
    network: Annotated[str, typer.Option(help="Which to train: a name of `edge-latup networks`.")] = LATUP_NET,
    width: Annotated[int | None, typer.Option(help="Of LATUP-Net: channels of the first stage; 32, as published, unless given.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Adam's rate after warm-up.")] = 1e-3,
    final_learning_rate: Annotated[float, typer.Option(help="Rate at the last step (cosine decay).")] = 1e-5,
    l2: Annotated[float, typer.Option(min=0, help="L2 coefficient of the 11 published kernels (published: 0.02 for 200 epochs).")] = 0.0,
    grafts: Annotated[int, typer.Option(min=0, help="Copies of each real case with one more, synthetic, lesion.")] = 0,
    real_share: Annotated[float, typer.Option(help="Share of patches drawn from the real cases.")] = 0.4,
    cross_entropy_weight: Annotated[float, typer.Option(min=0, help="Of cross-entropy beside weighted Dice; 0 as published.")] = 13.0,
    head_share: Annotated[float, typer.Option(min=0, max=1, help="Share of steps on a whole head, as brain-crop shows it.")] = 0.0,
    foreground_share: Annotated[float, typer.Option(min=0, max=1, help="Share of patches centred near tumour.")] = 0.6,
    intensity_variation: Annotated[float, typer.Option(min=0, help="Scale of the random gamma, gain and offset.")] = 0.6,
    dice_smoothing: Annotated[float, typer.Option(help="Voxels added to each Dice ratio; 1000s punish false tumour.")] = 1e-5,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.9, help="Instead of the network's own rate.")] = None,
    stop_after: Annotated[int | None, typer.Option(min=1, help="End at this step, before the schedule does.")] = None,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps after which the state is saved, from which a run that is cut off goes on.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and options, same patches.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves the choice to PyTorch.")] = 0,
) -> None:
    """Train a network; resumes the run found in --out, saves the averaged weights as a checkpoint folder."""
    from edge_latup.training.recipe import TrainingRecipe
    from edge_latup.training.session import Listeners, Sources, run_training

    if width is not None and (width < 8 or width % 8):
        raise InputError(f"--width {width} is not a positive multiple of 8", "attention divides the channels by 8: try 16 or 32")
    for option, rate in (("--learning-rate", learning_rate), ("--final-learning-rate", final_learning_rate)):
        if not 0 < rate < 1:
            raise InputError(f"{option} {rate:g} is not between 0 and 1", "try 1e-3, and 1e-5 for the last step")
    if dice_smoothing <= 0:
        raise InputError(f"--dice-smoothing {dice_smoothing:g} is not above 0", "1e-5 is next to none; 3000 suits patches of 128")
    if not 0 < real_share < 1:
        raise InputError(f"--real-share {real_share:g} is not between 0 and 1", "0.4 draws two patches of five from the real cases")
    recipe = TrainingRecipe(
        seed=seed, phases=tuple(_phase(text) for text in phase or ["64:2000"]), learning_rate=learning_rate,
        final_learning_rate=final_learning_rate, l2=l2, grafts=grafts, real_share=real_share,
        cross_entropy_weight=cross_entropy_weight, foreground_share=foreground_share, head_share=head_share,
        intensity_variation=intensity_variation, dice_smoothing=dice_smoothing, dropout=dropout, stop_after=stop_after,
        save_every=save_every,
    )  # fmt: skip
    spec = _spec(network, width, [*(cases or []), *(real_cases or [])])
    sources = Sources(synthetic=cases or [], real=real_cases or [], held_out=held_out or [], start_from=start_from, threads=threads)
    with output.progress("training", recipe.last_step) as ticker:
        listeners = Listeners(note=output.note, on_step=lambda step, loss: ticker.update(step, f"loss {loss:.3f}"))
        record = run_training(spec, recipe, out, sources, listeners)
    output.result(record.model_dump(mode="json"), f"checkpoint in {out}")
    rows = [[name, *(f"{value:.4f}" for value in scores.values())] for name, scores in record.held_out_dice.items()]
    if rows:
        output.table(f"Held-out Dice after {recipe.last_step} steps", ["case", *spec.found_regions], rows)
