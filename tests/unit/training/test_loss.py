"""The weighted Dice loss is the published equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from edge_latup.training.loss import region_loss, training_loss, weighted_dice_loss

NCR, ED, ET = 1, 2, 3
ALL = 4.19 + 1.64 + 7.59


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return F.one_hot(labels, 4).movedim(-1, 1).float()


def published(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """(1.64 + 2.55 + 3.40) DSL_ET + (1.64 + 2.55) DSL_NCR + 1.64 DSL_ED, in float64."""
    p, total = probabilities.astype(np.float64), 0.0
    for channel, weight in ((ET, 1.64 + 2.55 + 3.40), (NCR, 1.64 + 2.55), (ED, 1.64)):
        y = (labels == channel).astype(np.float64)
        total += weight * (1 - (2 * (y * p[:, channel]).sum() + 1e-5) / ((y**2).sum() + (p[:, channel] ** 2).sum() + 1e-5))
    return total


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, 6, 5, 4)))


def test_a_perfect_prediction_costs_nothing(labels: torch.Tensor) -> None:
    assert float(weighted_dice_loss(one_hot(labels), labels)) == pytest.approx(0, abs=1e-4)


def test_a_perfect_prediction_of_an_empty_patch_costs_nothing() -> None:
    empty = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    assert float(weighted_dice_loss(one_hot(empty), empty)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("channel", "weight"), [(ET, 7.59), (NCR, 4.19), (ED, 1.64), (0, 0.0)])
def test_each_class_has_its_published_weight_and_background_none(labels: torch.Tensor, channel: int, weight: float) -> None:
    """All of one class missed, the others perfect."""
    missed = one_hot(labels)
    missed[:, channel] = 0
    assert float(weighted_dice_loss(missed, labels)) == pytest.approx(weight, abs=1e-4)


def test_calling_everything_background_costs_the_sum_of_the_weights(labels: torch.Tensor) -> None:
    assert float(weighted_dice_loss(one_hot(torch.zeros_like(labels)), labels)) == pytest.approx(ALL, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_the_equation_in_float64(labels: torch.Tensor, seed: int) -> None:
    logits = torch.randn(2, 4, 6, 5, 4, generator=torch.Generator().manual_seed(seed))
    probabilities = torch.softmax(3 * logits, 1)
    assert float(weighted_dice_loss(probabilities, labels)) == pytest.approx(published(probabilities.numpy(), labels.numpy()), rel=1e-5)


def test_sums_run_over_the_batch_and_not_case_by_case(labels: torch.Tensor) -> None:
    probabilities = torch.softmax(torch.randn(2, 4, 6, 5, 4), 1)
    halves = [float(weighted_dice_loss(probabilities[k : k + 1], labels[k : k + 1])) for k in (0, 1)]
    joined = torch.cat(list(probabilities), dim=1)[None], torch.cat(list(labels))[None]
    assert float(weighted_dice_loss(*joined)) == pytest.approx(float(weighted_dice_loss(probabilities, labels)), rel=1e-5)
    assert float(weighted_dice_loss(probabilities, labels)) != pytest.approx(sum(halves) / 2, rel=1e-6)


def test_cross_entropy_is_added_with_its_weight(labels: torch.Tensor) -> None:
    logits = torch.randn(2, 4, 6, 5, 4)
    dice = weighted_dice_loss(torch.softmax(logits, 1), labels)
    assert torch.equal(training_loss(logits, labels, 0.0), dice)
    torch.testing.assert_close(training_loss(logits, labels, 0.5), dice + 0.5 * F.cross_entropy(logits, labels))


def test_half_precision_logits_are_summed_in_float32(labels: torch.Tensor) -> None:
    logits = torch.randn(2, 4, 6, 5, 4).bfloat16()
    assert training_loss(logits, labels, 1.0).dtype == torch.float32


def test_the_gradient_lowers_the_loss(labels: torch.Tensor) -> None:
    logits = torch.zeros(2, 4, 6, 5, 4, requires_grad=True)
    before = training_loss(logits, labels, 1.0)
    before.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(training_loss((logits - 10 * logits.grad).detach(), labels, 1.0)) < float(before.detach())


def _false_tumour(share: float, smoothing: float) -> tuple[float, float]:
    """Loss, and its slope with the logit, where `share` of a patch without tumour is taken for enhancing tumour."""
    empty = torch.zeros(1, 16, 16, 16, dtype=torch.int64)
    logits = torch.zeros(1, 4, 16, 16, 16)
    logits[:, 0] = 6.0
    logits[:, ET, : int(16 * share)] = 7.0
    logits.requires_grad_()
    loss = training_loss(logits, empty, 0.0, smoothing)
    loss.backward()
    assert logits.grad is not None
    return float(loss.detach()), float(logits.grad[:, ET].sum())


def test_false_tumour_costs_nothing_more_as_published_and_with_smoothing_the_more_of_it_the_more() -> None:
    """Without smoothing the first false voxel costs all there is, so removing half of a false lesion gains nothing."""
    half, quarter = _false_tumour(0.5, 1e-5), _false_tumour(0.25, 1e-5)
    assert half[0] == pytest.approx(quarter[0], rel=1e-4)
    assert half[1] < 1e-5
    half, quarter = _false_tumour(0.5, 1000.0), _false_tumour(0.25, 1000.0)
    assert half[0] > quarter[0] + 1
    assert half[1] > 0.1


def test_smoothing_costs_a_perfect_prediction_nothing(labels: torch.Tensor) -> None:
    assert float(weighted_dice_loss(one_hot(labels), labels, 500.0)) == pytest.approx(0, abs=1e-4)


def test_regions_are_smoothed_alike(labels: torch.Tensor) -> None:
    logits = torch.full((2, 1, 6, 5, 4), -4.0)
    p, y = torch.sigmoid(logits[:, 0].double()), (labels == ET).double()
    expected = 1 - (2 * (p * y).sum() + 50) / ((p * p).sum() + y.sum() + 50)
    assert float(region_loss(logits, labels, ("ET",), 0.0, 50.0)) == pytest.approx(float(expected), rel=1e-5)
