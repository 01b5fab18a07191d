"""A run can be cut off and resumed bit for bit, only with its own recipe, and follows its learning rate."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support import tree
from tiny_network import random_network, tiny_spec, write_checkpoint

from edge_latup.errors import SpecError
from edge_latup.manifest import SeenCase
from edge_latup.networks.latup_net import LatupNet
from edge_latup.spec import ModelSpec, SlidingWindow
from edge_latup.training import loop
from edge_latup.training.data import TrainingCase
from edge_latup.training.loop import CURVE_NAME, RECIPE_NAME, STATE_NAME, Run, averaged, learning_rate, start, train, train_step
from edge_latup.training.recipe import Phase, TrainingRecipe

SPEC = tiny_spec(24)
RECIPE = TrainingRecipe(seed=5, phases=(Phase(patch=16, steps=2), Phase(patch=24, steps=2)), warm_up_steps=1, save_every=2, l2=0.01)


def cases() -> list[TrainingCase]:
    rng = np.random.default_rng(0)
    label = np.zeros((24, 24, 24), np.uint8)
    label[4:12, 5:13, 3:11] = 2
    label[6:10, 7:11, 5:9] = 3
    label[7:9, 8:10, 6:8] = 1
    image = (rng.random((3, 24, 24, 24)) * 0.4 + 0.15 * label).astype(np.float16)
    voxels = tuple(np.argwhere(label == value) for value in (1, 2, 3))
    return [TrainingCase(name="case", image=image, label=label, voxels=voxels, weight=1.0, seen=SeenCase(name="case", sha256="0" * 64))]


class CutOffError(Exception):
    """The session ends here."""


def cut_off_after(steps: int, folder: Path) -> None:
    """Train until `steps` are done, as if the machine had been switched off then."""

    def stop(step: int, _: float) -> None:
        if step > steps:
            raise CutOffError

    with pytest.raises(CutOffError):
        train(start(SPEC, RECIPE, folder), cases(), stop)


def finish(folder: Path) -> LatupNet:
    return train(start(SPEC, RECIPE, folder), cases(), lambda step, loss: None)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(folder)
    return folder


def assert_same_run(first: Path, second: Path) -> None:
    one, other = load_file(first / STATE_NAME), load_file(second / STATE_NAME)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (first / CURVE_NAME).read_bytes() == (second / CURVE_NAME).read_bytes()


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(unbroken: Path, tmp_path: Path) -> None:
    cut_off_after(2, tmp_path)
    assert len(load_file(tmp_path / STATE_NAME)["curve"]) == 2
    finish(tmp_path)
    assert_same_run(unbroken, tmp_path)


def test_a_run_resumed_by_another_process_equals_an_unbroken_one_bit_for_bit(unbroken: Path, tmp_path: Path) -> None:
    cut_off_after(2, tmp_path)
    other = "import sys, torch; sys.path[:0] = sys.argv[2:]; torch.set_num_threads(1); import run; run.finish(run.Path(sys.argv[1]))"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "run.py").write_text(Path(__file__).read_text())
    subprocess.run([sys.executable, "-c", other, str(tmp_path), str(tmp_path / "code"), *sys.path], check=True, timeout=120)
    assert_same_run(unbroken, tmp_path)


def test_a_step_does_not_depend_on_what_memory_held_before(unbroken: Path, tmp_path: Path) -> None:
    """OneDNN's bf16 weight gradient of a 3^3 convolution reads unwritten memory on 2^3 voxels, which is why patches start at 16."""

    def litter(step: int, _: float) -> None:
        for elements in (64, 512, 1728, 4096, 13824, 32768, 131072):
            torch.full((elements,), math.nan)
            torch.full((elements,), math.nan, dtype=torch.bfloat16)

    litter(0, 0.0)
    train(start(SPEC, RECIPE, tmp_path), cases(), litter)
    assert_same_run(unbroken, tmp_path)


def test_a_finished_run_is_not_trained_further(unbroken: Path, tmp_path: Path) -> None:
    before, reported = tree(unbroken), []
    network = train(start(SPEC, RECIPE, unbroken), cases(), lambda step, loss: reported.append(step))
    assert reported == []
    assert tree(unbroken) == before
    assert not network.training
    average = load_file(unbroken / STATE_NAME)
    assert all(torch.equal(tensor, average[f"average/{name}"]) for name, tensor in network.state_dict().items())


def test_the_curve_holds_the_loss_of_every_step(unbroken: Path) -> None:
    curve = json.loads((unbroken / CURVE_NAME).read_text())["loss"]
    assert len(curve) == RECIPE.steps == 4
    assert all(math.isfinite(loss) and loss > 0 for loss in curve)


def test_another_seed_gives_another_run(unbroken: Path, tmp_path: Path) -> None:
    other = RECIPE.model_copy(update={"seed": 6})
    network = train(start(SPEC, other, tmp_path), cases(), lambda step, loss: None)
    assert not torch.equal(network.output.weight, load_file(unbroken / STATE_NAME)["average/output.weight"])


def test_a_run_may_go_on_to_another_end_but_not_back(unbroken: Path, tmp_path: Path) -> None:
    short = RECIPE.model_copy(update={"stop_after": 2, "save_every": 1})
    train(start(SPEC, short, tmp_path), cases(), lambda step, loss: None)
    network = train(start(SPEC, RECIPE, tmp_path), cases(), lambda step, loss: None)
    assert torch.equal(network.output.weight, load_file(unbroken / STATE_NAME)["average/output.weight"])
    with pytest.raises(SpecError, match="holds step 4, past the end at 2"):
        start(SPEC, short, tmp_path)


@pytest.mark.parametrize(
    "changes", [{"seed": 6}, {"learning_rate": 2e-3}, {"l2": 0.0}, {"phases": (Phase(patch=16, steps=4),)}, {"grafts": 1}]
)
def test_a_run_with_another_recipe_is_refused_and_left_as_it_is(unbroken: Path, changes: dict[str, object]) -> None:
    before = tree(unbroken)
    with pytest.raises(SpecError, match="holds a run with another recipe") as caught:
        start(SPEC, RECIPE.model_copy(update=changes), unbroken)
    assert RECIPE_NAME in caught.value.hint
    assert tree(unbroken) == before


def test_a_run_of_another_network_is_refused(unbroken: Path) -> None:
    before = tree(unbroken)
    for other in (tiny_spec(24, width=16), tiny_spec(24, attention=False)):
        with pytest.raises(SpecError, match="holds a run of another network"):
            start(other, RECIPE, unbroken)
    assert tree(unbroken) == before


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    cut_off_after(2, tmp_path)
    state = (tmp_path / STATE_NAME).read_bytes()
    (tmp_path / STATE_NAME).write_bytes(state[:-5])
    with pytest.raises(SpecError, match=f"{STATE_NAME} is damaged"):
        start(SPEC, RECIPE, tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(name="nothing"), "declares no network"),
        (tiny_spec(16), "patch 24 is larger than the crop (16, 16, 16)"),
        (SPEC.model_copy(update={"labels": (0, 2, 1, 3)}), "has labels (0, 2, 1, 3)"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(tmp_path: Path, spec: ModelSpec, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        start(spec, RECIPE, tmp_path / "run")
    assert message in caught.value.message
    assert not tree(tmp_path)


def test_a_network_that_slides_windows_is_shown_no_whole_heads(tmp_path: Path) -> None:
    windows = SPEC.model_copy(update={"spatial": SlidingWindow(size=SPEC.spatial.size)})
    with pytest.raises(SpecError, match="sees no whole head"):
        start(windows, RECIPE.model_copy(update={"head_share": 0.5}), tmp_path / "run")
    assert not tree(tmp_path)


def test_a_file_is_no_place_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SpecError, match="is a file"):
        start(SPEC, RECIPE, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_checkpoint_that_is_no_run_is_not_written_over(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(SpecError, match="holds a checkpoint and no run to resume"):
        start(SPEC, RECIPE, tmp_path)
    assert tree(tmp_path) == before


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(SPEC, RECIPE, tmp_path)
    monkeypatch.setattr(loop, "train_step", lambda run, cases: run.curve.append(math.nan) or math.nan)
    with pytest.raises(SpecError, match="the loss became nan at step 1"):
        train(run, cases(), lambda step, loss: None)
    assert not (tmp_path / STATE_NAME).exists()


@pytest.mark.parametrize(("share", "kept"), [(0.0, 1), (0.5, 0)])
def test_heads_of_several_shapes_are_trained_on_without_keeping_freed_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, kept: int
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: asked.append(None))
    (deployed,) = cases()
    heads = [replace(deployed, image=deployed.image[:, :side], label=deployed.label[:side], whole=True) for side in (16, 24)]
    run = start(SPEC, RECIPE.model_copy(update={"head_share": share}), tmp_path)
    train(run, [deployed, *heads], lambda step, loss: None)
    assert len(asked) == kept
    assert all(math.isfinite(loss) for loss in run.curve)


def test_the_learning_rate_warms_up_then_falls_along_a_cosine() -> None:
    recipe = TrainingRecipe(phases=(Phase(patch=16, steps=110),), warm_up_steps=10, learning_rate=1e-3, final_learning_rate=1e-5)
    rates = [learning_rate(recipe, step) for step in range(110)]
    np.testing.assert_allclose(rates[:10], np.linspace(1e-4, 1e-3, 10))
    assert rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[109] == pytest.approx(1e-5, rel=0.05)
    assert np.all(np.diff(rates[10:]) < 0)


def test_a_run_of_nothing_but_warm_up_has_a_rate_for_every_step() -> None:
    recipe = TrainingRecipe(phases=(Phase(patch=16, steps=3),), warm_up_steps=3)
    assert [learning_rate(recipe, step) for step in range(4)][:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])


def test_each_step_uses_its_own_rate_and_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, used, sides = start(SPEC, RECIPE, tmp_path), [], []
    logits = run.network.logits

    def note_size(x: torch.Tensor) -> torch.Tensor:
        sides.append(tuple(x.shape[2:]))
        return logits(x)

    monkeypatch.setattr(run.network, "logits", note_size)
    for _ in range(4):
        train_step(run, cases())
        used.append({group["lr"] for group in run.optimiser.param_groups})
    assert used == [{learning_rate(RECIPE, step)} for step in range(4)]
    assert sides == [(16, 16, 16)] * 2 + [(24, 24, 24)] * 2


def test_a_run_ends_early_where_its_recipe_says_so_with_the_rates_of_the_whole(unbroken: Path, tmp_path: Path) -> None:
    short = RECIPE.model_copy(update={"stop_after": 3})
    assert (short.last_step, RECIPE.last_step, short.model_copy(update={"stop_after": 9}).last_step) == (3, 4, 4)
    train(start(SPEC, short, tmp_path), cases(), lambda step, loss: None)
    whole, cut = (load_file(folder / STATE_NAME)["curve"] for folder in (unbroken, tmp_path))
    assert torch.equal(cut, whole[:3])


def test_only_the_published_kernels_are_penalised(tmp_path: Path) -> None:
    run = start(SPEC, RECIPE, tmp_path)
    penalised, free = run.optimiser.param_groups
    assert (penalised["weight_decay"], free["weight_decay"]) == (0.02, 0)  # the gradient of 0.01 w^2
    assert {id(p) for p in penalised["params"]} == {id(w) for w in run.network.regularised_weights()}
    assert len(penalised["params"]) + len(free["params"]) == 58


def test_the_average_forgets_the_random_start(tmp_path: Path) -> None:
    run = start(SPEC, RECIPE, tmp_path)
    first = {name: tensor.clone() for name, tensor in run.average.items()}
    train_step(run, cases())
    assert all(torch.equal(run.average[name], parameter) for name, parameter in run.network.named_parameters())
    assert not torch.equal(run.average["output.weight"], first["output.weight"])


def test_the_averaged_network_is_float32_on_the_cpu_in_eval_mode(tmp_path: Path) -> None:
    run = start(SPEC, RECIPE, tmp_path)
    run.average = {name: tensor.clone() for name, tensor in random_network(seed=9).named_parameters()}
    network = averaged(run)
    assert isinstance(run, Run)
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert (tensor.dtype, tensor.device.type) == (torch.float32, "cpu")
        assert tensor.is_contiguous()
        assert torch.equal(tensor, run.average[name])


def test_the_recipe_is_written_before_the_first_step(tmp_path: Path) -> None:
    start(SPEC, RECIPE, tmp_path)
    assert set(tree(tmp_path)) == {RECIPE_NAME}
    assert TrainingRecipe.model_validate_json((tmp_path / RECIPE_NAME).read_text()) == RECIPE


@pytest.mark.parametrize("patch", [0, 8, 20, -16])
def test_a_patch_that_cannot_be_trained_is_refused(patch: int) -> None:
    with pytest.raises(ValidationError, match="patch"):
        Phase(patch=patch, steps=1)


def test_phases_follow_each_other() -> None:
    assert [RECIPE.patch_at(step) for step in range(5)] == [16, 16, 24, 24, 24]


def test_a_recipes_dropout_replaces_the_networks_own(tmp_path: Path) -> None:
    def rates(recipe: TrainingRecipe, folder: str) -> set[float]:
        network = start(SPEC, recipe, tmp_path / folder).network
        return {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates(RECIPE, "own") == {0.2}
    assert rates(RECIPE.model_copy(update={"dropout": 0.0}), "none") == {0.0}


@pytest.mark.parametrize("changed", [{"dropout": 0.0}, {"dice_smoothing": 100.0}])
def test_a_run_is_not_resumed_with_another_loss_or_dropout(tmp_path: Path, changed: dict[str, float]) -> None:
    cut_off_after(2, tmp_path)
    with pytest.raises(SpecError, match="another recipe"):
        start(SPEC, RECIPE.model_copy(update=changed), tmp_path)


def test_smoothing_reaches_the_loss(tmp_path: Path) -> None:
    smooth = RECIPE.model_copy(update={"dice_smoothing": 1e5, "dropout": 0.0})
    plain = RECIPE.model_copy(update={"dropout": 0.0})
    losses = [train_step(start(SPEC, recipe, tmp_path / name), cases()) for name, recipe in (("smooth", smooth), ("plain", plain))]
    assert losses[0] < losses[1] - 5
