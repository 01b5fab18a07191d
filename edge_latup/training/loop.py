"""The training loop: bf16 autocast, Adam with cosine decay, averaged weights, a state file to resume from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edge_latup.errors import SpecError
from edge_latup.networks.base import SegmentationNetwork
from edge_latup.networks.build import WEIGHTS_NAME, build
from edge_latup.records import read_record, replacing, write_record, write_text
from edge_latup.spec import AnyNetwork, ModelSpec, SlidingWindow
from edge_latup.training.augment import augment
from edge_latup.training.data import TrainingCase, draw_patch
from edge_latup.training.loss import region_loss, training_loss
from edge_latup.training.memory import keep_freed_memory
from edge_latup.training.norms import measure_norms, statistics_of
from edge_latup.training.recipe import TrainingRecipe

STATE_NAME: Final = "state.safetensors"
CURVE_NAME: Final = "curve.json"
RECIPE_NAME: Final = "recipe.json"
TRAINED_LABELS: Final = (0, 1, 2, 3)
"""Class of each output channel in the loss: background, necrotic core, oedema, enhancing tumour."""

NORM_BATCHES: Final = 50
"""Patches over which the running statistics of batch norms are measured once training is over."""


@dataclass(kw_only=True)
class Run:
    """A run in progress. `curve` holds the loss of every step so far."""

    network: SegmentationNetwork
    average: dict[str, torch.Tensor]
    optimiser: torch.optim.Adam
    recipe: TrainingRecipe
    folder: Path
    spec: ModelSpec
    curve: list[float] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.curve)


def device_here() -> torch.device:
    """CUDA when present, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_begun(folder: Path) -> bool:
    """Whether `folder` holds the state of a run."""
    return (folder / STATE_NAME).is_file()


def check_run(spec: ModelSpec, recipe: TrainingRecipe, folder: Path) -> AnyNetwork:
    """The network to train in `folder`. Reads and writes no more than it must, so it comes before the cases are read.

    Raises:
        SpecError: the spec or the recipe cannot be trained, or the folder holds a run with another recipe, or only a checkpoint.
    """
    if spec.network is None:
        raise SpecError(f"model spec {spec.name} declares no network, so there is nothing to train", 'add "network" to the spec')
    if spec.regions is None and spec.labels != TRAINED_LABELS:
        raise SpecError(f"model spec {spec.name} has labels {spec.labels}", f"the loss is defined for {TRAINED_LABELS}")
    if recipe.head_share and isinstance(spec.spatial, SlidingWindow):
        raise SpecError(f"{spec.name} slides windows and sees no whole head", "leave out --head-share")
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"{folder} is a file", "choose another --out: a checkpoint is a folder")
    _check_patches(spec, spec.network, recipe)
    if is_begun(folder) and not _same_steps(read_record(TrainingRecipe, folder / RECIPE_NAME), recipe):
        raise SpecError(f"{folder} holds a run with another recipe", f"repeat its options ({RECIPE_NAME}), or choose a new --out")
    if not is_begun(folder) and (folder / WEIGHTS_NAME).exists():
        raise SpecError(f"{folder} holds a checkpoint and no run to resume", "choose a new --out; --start-from goes on from a checkpoint")
    return spec.network


def _check_patches(spec: ModelSpec, network: AnyNetwork, recipe: TrainingRecipe) -> None:
    # A 2-D network sees whole slices, however few of them are run at once.
    sides = spec.spatial.size[:2] if network.family == "res-unet" else spec.spatial.size
    # The batch norms of a single patch need more than one voxel where its grid is smallest.
    least = 2 * network.divisor if network.family == "attention-resnet-unet" else 0
    for patch in (phase.patch for phase in recipe.phases):
        if patch > min(sides):
            raise SpecError(f"patch {patch} is larger than the crop {spec.spatial.size}", "choose a --phase with a smaller patch")
        if patch % spec.divisor or patch < least:
            raise SpecError(
                f"patch {patch} cannot be halved as often as {network.family} does", f"choose a multiple of {spec.divisor} from {least} on"
            )


def _same_steps(first: TrainingRecipe, second: TrainingRecipe) -> bool:
    """Whether two recipes take the same steps, as far as both go: where a run ends, and how often it is saved, changes none of them."""
    return first.model_copy(update={"stop_after": second.stop_after, "save_every": second.save_every}) == second


def start(spec: ModelSpec, recipe: TrainingRecipe, folder: Path) -> Run:
    """Begin a run in `folder`, or continue the one whose state is there.

    Raises:
        SpecError: see `check_run`; or the state there is damaged or another network's.
    """
    declared = check_run(spec, recipe, folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = build(declared).to(device_here(), memory_format=_layout(declared))  # type: ignore[call-overload]
    if recipe.dropout is not None:
        _set_dropout(network, recipe.dropout)
    optimiser = torch.optim.Adam(_groups(network, recipe.l2), lr=recipe.learning_rate)
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    run = Run(network=network, average=average, optimiser=optimiser, recipe=recipe, folder=folder, spec=spec)
    if is_begun(folder):
        _resume(run)
    if run.step > recipe.last_step:
        raise SpecError(f"{folder} holds step {run.step}, past the end at {recipe.last_step}", "raise --stop-after, or choose a new --out")
    if not run.step or read_record(TrainingRecipe, folder / RECIPE_NAME) != recipe:
        write_record(recipe, folder / RECIPE_NAME)
    return run


def _set_dropout(network: SegmentationNetwork, rate: float) -> None:
    for module in network.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d, torch.nn.Dropout3d)):
            module.p = rate


def _layout(network: AnyNetwork) -> torch.memory_format:
    """Channels last, where convolutions are fastest."""
    return torch.channels_last if network.family == "res-unet" else torch.channels_last_3d


def _groups(network: SegmentationNetwork, l2: float) -> list[dict[str, object]]:
    """Adam parameter groups. Keras adds l2 * sum(w^2) to the loss, whose gradient is 2 * l2 * w: Adam's weight_decay."""
    penalised = {id(w) for w in network.regularised_weights()}
    groups = ([p for p in network.parameters() if id(p) in penalised], [p for p in network.parameters() if id(p) not in penalised])
    return [{"params": groups[0], "weight_decay": 2 * l2}, {"params": groups[1], "weight_decay": 0.0}]


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """Linear warm-up, then cosine decay from learning_rate to final_learning_rate."""
    if step < recipe.warm_up_steps:
        return recipe.learning_rate * (step + 1) / recipe.warm_up_steps
    done = (step - recipe.warm_up_steps) / max(recipe.steps - recipe.warm_up_steps, 1)
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * done))


def _autocast() -> AbstractContextManager[None]:
    return torch.autocast(device_here().type, dtype=torch.bfloat16)


def _batch(cases: Sequence[TrainingCase], run: Run, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    recipe, spec = run.recipe, run.spec
    rng = np.random.default_rng([recipe.seed, step])
    patch = recipe.patch_at(step)
    drawn = draw_patch(cases, (patch, patch, min(patch, spec.spatial.size[2])), rng, recipe.foreground_share)
    image, label = augment(*drawn, rng, recipe.intensity_variation, scores=spec.normalisation == "z_score_nonzero")
    x = torch.from_numpy(image)[None].to(device_here(), memory_format=torch.channels_last_3d)
    return x, torch.from_numpy(label.astype(np.int64))[None].to(device_here())


def _loss(logits: torch.Tensor, labels: torch.Tensor, run: Run) -> torch.Tensor:
    weight, smoothing = run.recipe.cross_entropy_weight, run.recipe.dice_smoothing
    if run.spec.regions is not None:
        return region_loss(logits, labels, run.spec.regions.order, weight, smoothing)
    return training_loss(logits, labels, weight, smoothing)


def train_step(run: Run, cases: Sequence[TrainingCase]) -> float:
    """One optimiser step; returns the loss."""
    step = run.step
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(run.recipe, step)
    x, labels = _batch(cases, run, step)
    torch.manual_seed(run.recipe.seed * 1_000_003 + step)  # dropout
    with _autocast():
        logits = run.network.logits(x)
    loss = _loss(logits, labels, run)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), 12.0)
    run.optimiser.step()
    # A young average must not remember the random start, so its memory grows with the run.
    decay = min(run.recipe.weight_average, step / (step + 10))
    with torch.no_grad():
        for name, parameter in run.network.named_parameters():
            run.average[name].lerp_(parameter, 1 - decay)
    value = float(loss.detach())
    run.curve.append(value)
    return value


def train(run: Run, cases: Sequence[TrainingCase], on_step: Callable[[int, float], None]) -> SegmentationNetwork:
    """Run all remaining steps, saving the state as the recipe says; returns the network with averaged weights, in eval mode.

    Raises:
        SpecError: the loss is no longer finite.
    """
    run.network.train()
    if not run.recipe.head_share:  # heads differ in shape: what one leaves free is in pieces too small for the next, until memory is full
        keep_freed_memory()
    while run.step < run.recipe.last_step:
        loss = train_step(run, cases)
        if not math.isfinite(loss):
            raise SpecError(f"the loss became {loss} at step {run.step}", "lower --learning-rate, or resume from an older folder")
        on_step(run.step, loss)
        if run.step % run.recipe.save_every == 0 or run.step == run.recipe.last_step:
            save_state(run)
    return averaged(run, cases)


def averaged(run: Run, cases: Sequence[TrainingCase] = ()) -> SegmentationNetwork:
    """The network with its averaged weights, float32, eval mode, on the CPU; `cases` are what its batch norms are measured on."""
    run.network.load_state_dict(run.average, strict=False)
    if cases:
        measure_norms(run.network, (_batch(cases, run, step)[0] for step in range(min(NORM_BATCHES, run.recipe.steps))))
    return run.network.float().cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload,no-any-return]


def save_state(run: Run) -> None:
    """Write everything a resumed run needs, replacing the previous state in one step."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in run.network.named_parameters():
        state = run.optimiser.state[parameter]
        tensors |= {f"weight/{name}": parameter, f"average/{name}": run.average[name]}
        tensors |= {f"adam/{key}/{name}": torch.as_tensor(value) for key, value in state.items()}
    tensors |= {f"buffer/{name}": buffer for name, buffer in statistics_of(run.network)}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    tensors["curve"] = torch.tensor(run.curve, dtype=torch.float64)
    with replacing(run.folder / STATE_NAME) as temporary:
        save_file(tensors, temporary)
    write_text(json.dumps({"loss": [round(value, 5) for value in run.curve]}) + "\n", run.folder / CURVE_NAME)


def _resume(run: Run) -> None:
    tensors = _read_state(run)
    for name, buffer in statistics_of(run.network):
        buffer.copy_(tensors[f"buffer/{name}"])
    for name, parameter in run.network.named_parameters():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
            run.average[name].copy_(tensors[f"average/{name}"])
        keys = [key for key in tensors if key.startswith("adam/") and key.split("/", 2)[2] == name]
        # Adam keeps its step counter on the CPU and its moments where, and in the layout in which, the parameter is.
        run.optimiser.state[parameter] = {
            key.split("/")[1]: tensors[key] if key.startswith("adam/step/") else torch.empty_like(parameter).copy_(tensors[key])
            for key in keys
        }
    run.curve.extend(tensors["curve"].tolist())


def _read_state(run: Run) -> dict[str, torch.Tensor]:
    path = run.folder / STATE_NAME
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SpecError(f"{path} is damaged ({error})", "choose a new --out; the run cannot be resumed") from error
    expected = {f"weight/{name}": parameter.shape for name, parameter in run.network.named_parameters()}
    if expected != {name: tensor.shape for name, tensor in tensors.items() if name.startswith("weight/")}:
        raise SpecError(f"{run.folder} holds a run of another network", "give the --width it was begun with, or choose a new --out")
    return tensors
