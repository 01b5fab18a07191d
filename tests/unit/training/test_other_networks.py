"""The other networks train by the same loop: batch norms resumed and measured anew, regions, z-scores, windows, a learnt histogram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import write_case
from tiny_networks import tiny_spec_of

from edge_latup.cases.cohort import write_cohort
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import CaseError, SpecError
from edge_latup.networks.build import load_checkpoint
from edge_latup.spec import ModelSpec
from edge_latup.training.augment import vary_score
from edge_latup.training.data import learnt_reference, load_cases
from edge_latup.training.loop import STATE_NAME, start, train
from edge_latup.training.loss import region_loss
from edge_latup.training.recipe import Phase, TrainingRecipe
from edge_latup.training.session import Listeners, Sources, run_training, score

RECIPE = TrainingRecipe(phases=(Phase(patch=16, steps=3),), save_every=1, warm_up_steps=1)
NAMES = ("attention-resnet-unet R1", "res-unet gate", "res-unet cbam")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("cohort")
    return [out / files.name for files in write_cohort(out, cases=2, seed=3, shape=(40, 36, 32))]


def run(folder: Path, name: str, cohort: list[Path], **changes: Any) -> ModelSpec:
    spec = tiny_spec_of(name)
    run_training(spec, RECIPE.model_copy(update=changes), folder, Sources(synthetic=cohort[:1], held_out=cohort[1:]), Listeners())
    return spec


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_gives_the_same_weights_and_statistics(tmp_path: Path, cohort: list[Path], name: str) -> None:
    spec = run(tmp_path / "unbroken", name, cohort)
    for steps in (1, 2, None):
        run(tmp_path / "resumed", name, cohort, stop_after=steps)
    first, second = (load_file(tmp_path / folder / "model.safetensors") for folder in ("unbroken", "resumed"))
    assert first.keys() == second.keys()
    assert any(key.endswith("running_var") for key in first)
    assert not any(key.endswith("tracked") for key in first)
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, rtol=0, atol=0)
    states = [load_file(tmp_path / folder / STATE_NAME) for folder in ("unbroken", "resumed")]
    assert all(torch.equal(states[1][key], tensor) for key, tensor in states[0].items())
    network, loaded = load_checkpoint(tmp_path / "resumed")
    assert loaded == spec
    scores = score(network, spec, cohort[1:], (), lambda _: None)
    assert set(next(iter(scores.values()))) == set(spec.found_regions)


def test_statistics_are_those_of_the_averaged_weights(tmp_path: Path, cohort: list[Path]) -> None:
    """Of the first norm: mean and variance of what the first convolution gives on the patches of the run."""
    from edge_latup.training import loop

    spec = tiny_spec_of("res-unet")
    cases = load_cases(cohort[:1], [], spec, grafts=0, real_share=0.4, seed=0, progress=lambda _: None)
    begun = start(spec, RECIPE, tmp_path)
    network: Any = train(begun, cases, lambda step, loss: None)
    with torch.inference_mode():
        seen = [network.encoders[0].conv1(loop._batch(cases, begun, step)[0][0].permute(3, 0, 1, 2)) for step in range(3)]
    mean = torch.stack([values.mean((0, 2, 3)) for values in seen]).mean(0)
    variance = torch.stack([values.var((0, 2, 3)) for values in seen]).mean(0)
    torch.testing.assert_close(network.encoders[0].norm1.running_mean, mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network.encoders[0].norm1.running_var, variance, rtol=1e-3, atol=1e-4)
    assert network.encoders[0].norm1.momentum == 0.01


def test_patches_come_from_the_whole_head_where_windows_slide(cohort: list[Path]) -> None:
    spec = tiny_spec_of("res-unet")
    (case,) = load_cases(cohort[:1], [], spec, grafts=0, real_share=0.4, seed=0, progress=lambda _: None)
    raw = read_case(find_cases(cohort[0])[0], spec.modalities)
    head = np.any([image > 0.01 * image.max() for image in raw.images.values()], axis=0)
    assert raw.label is not None
    assert np.count_nonzero(case.label) == np.count_nonzero(raw.label)
    assert case.image.shape[1:] == tuple(-(-int(np.ptp(line) + 1) // 8) * 8 for line in np.nonzero(head))


def test_the_loss_of_regions_by_hand() -> None:
    labels = torch.tensor([[[[0, 1], [2, 3]]]])
    logits = torch.tensor([[[[[-1.0, 2], [0.5, 1]]], [[[-2, 0.1], [0.3, 3]]]]])
    p = 1 / (1 + np.exp(-logits.double().numpy()[0, :, 0]))
    truth = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    dice = [1 - (2 * (q * y).sum() + 1e-5) / ((q * q).sum() + y.sum() + 1e-5) for q, y in zip(p, truth, strict=True)]
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert float(region_loss(logits, labels, ("WT", "ET"), 0.0)) == pytest.approx(sum(dice), rel=1e-5)
    assert float(region_loss(logits, labels, ("WT", "ET"), 13.42)) == pytest.approx(sum(dice) + 2 * entropy, rel=1e-5)


def test_z_scores_are_varied_within_their_own_bounds_and_air_stays() -> None:
    rng = np.random.default_rng(0)
    channel = np.where(rng.random((8, 8, 8)) < 0.5, rng.normal(0, 2, (8, 8, 8)), 0).astype(np.float32)
    for seed in range(20):
        found = vary_score(channel, np.random.default_rng(seed))
        assert (found[channel == 0] == 0).all()
        assert channel.min() - 1e-4 <= found.min() <= found.max() <= channel.max() + 1e-4
        assert not np.array_equal(found, channel)
    np.testing.assert_array_equal(vary_score(np.zeros((2, 2, 2), np.float32), rng), 0)


def test_the_histogram_reference_is_the_mean_of_the_cases(cohort: list[Path]) -> None:
    spec = tiny_spec_of("attention-resnet-unet R1")
    both, first, second = (learnt_reference(folders, spec) for folders in (cohort, cohort[:1], cohort[1:]))
    for modality in spec.modalities:
        mean = np.mean([first.of(modality), second.of(modality)], axis=0)  # type: ignore[list-item]
        np.testing.assert_allclose(both.of(modality), mean, atol=1e-9)  # type: ignore[arg-type]
    assert ModelSpec.model_validate_json(spec.model_copy(update={"histogram": both}).model_dump_json()).histogram == both
    with pytest.raises(CaseError, match="no case to learn"):
        learnt_reference([], spec)


@pytest.mark.parametrize(("name", "divisor", "patch"), [("res-unet", 16, 24), ("attention-resnet-unet R2", 16, 16)])
def test_a_patch_that_cannot_be_halved_often_enough_is_refused(tmp_path: Path, name: str, divisor: int, patch: int) -> None:
    spec = tiny_spec_of(name).model_copy(update={"divisor": divisor, "labels": (0, 1, 2, 3)})
    if name != "res-unet":
        assert spec.network is not None
        spec = spec.model_copy(update={"network": spec.network.model_copy(update={"widths": (6, 12, 18, 24), "out_channels": 4})})
    with pytest.raises(SpecError, match=f"patch {patch} cannot be halved"):
        start(spec, TrainingRecipe(phases=(Phase(patch=patch, steps=1),)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_published_width_is_trained_by_name(tmp_path: Path, cli: Any) -> None:
    case = write_case(tmp_path / "case")
    done = cli("train", "--network", "attention-resnet-unet-flops-matched", "--out", tmp_path / "run", "--cases", case, "--phase", "32:1")
    assert done.code == 0, done.err
    assert "a background class is added" in done.err
    network, spec = load_checkpoint(tmp_path / "run")
    assert sum(p.numel() for p in network.parameters()) == 3_488_665
    assert (spec.labels, spec.resize, spec.post_process.threshold) == ((0, 1, 2, 3), (192, 192, 128), None)
    assert spec.histogram is not None
    assert len(spec.histogram.landmarks) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--network", "u-net"), "network 'u-net' is not known"), (("--network", "res-unet", "--width", "8"), "--width is LATUP-Net's")],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, cli: Any, arguments: tuple[str, ...], told: str) -> None:
    done = cli("train", "--out", tmp_path / "run", *arguments)
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "run").exists()
