"""Augmentation keeps labels on their voxels, air at 0 and intensities in [0, 1]."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_latup.training.augment import augment, flip, vary_intensity


def numbered(shape: tuple[int, ...] = (4, 5, 6)) -> tuple[np.ndarray, np.ndarray]:
    """An image of three channels that all hold the label, and the label: different in every voxel."""
    label = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return np.stack([label.astype(np.float32)] * 3), label


def head(seed: int) -> np.ndarray:
    """Three channels in [0, 1] with a block of head in air."""
    image = np.zeros((3, 16, 18, 20), np.float32)
    image[:, 3:13, 4:15, 2:18] = np.random.default_rng(seed).uniform(0.01, 1, (3, 10, 11, 16))
    return image


@pytest.mark.parametrize("seed", range(20))
def test_flips_keep_each_label_on_its_voxel(seed: int) -> None:
    image, label = flip(*numbered(), np.random.default_rng(seed))
    assert image.shape == (3, 4, 5, 6)
    for channel in image:
        np.testing.assert_array_equal(channel, label)


def test_every_mirror_image_comes_up_about_as_often() -> None:
    image, label = numbered()
    mirrors = [np.flip(label, axes).tobytes() for n in range(4) for axes in itertools.combinations(range(3), n)]
    drawn = [flip(image, label, np.random.default_rng(seed))[1].tobytes() for seed in range(400)]
    counts = [drawn.count(mirror) for mirror in mirrors]
    assert sum(counts) == 400
    assert min(counts) > 25


@pytest.mark.parametrize("seed", range(40))
def test_air_stays_0_and_everything_stays_within_0_and_1(seed: int) -> None:
    channel = head(seed)[0]
    varied = vary_intensity(channel, np.random.default_rng(seed))
    assert varied.dtype == np.float32
    assert varied.shape == channel.shape
    assert not varied[channel == 0].any()
    assert varied.min() >= 0
    assert varied.max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_patch_keeps_its_label_where_its_image_is(seed: int) -> None:
    image = head(seed)
    label = (image[0] > 0).astype(np.uint8)
    label[4:6, 5:8, 3:9] = 3
    new_image, new_label = augment(image, label, np.random.default_rng(seed))
    assert (new_image.shape, new_label.shape) == (image.shape, label.shape)
    assert (new_image.dtype, new_label.dtype) == (np.float32, np.uint8)
    assert new_label.flags.c_contiguous
    assert new_image.flags.c_contiguous
    np.testing.assert_array_equal(np.bincount(new_label.ravel()), np.bincount(label.ravel()))
    assert not new_image[:, new_label == 0].any()
    assert (new_image[:, new_label > 0] > 0).mean() > 0.8


def test_modalities_are_varied_each_on_its_own() -> None:
    image = np.repeat(head(0)[:1], 3, axis=0)
    varied, _ = augment(image, np.zeros(image.shape[1:], np.uint8), np.random.default_rng(1))
    assert not np.array_equal(varied[0], varied[1])
    assert not np.array_equal(varied[1], varied[2])


def test_a_constant_patch_gives_no_nan() -> None:
    for value in (0.0, 1.0):
        varied = vary_intensity(np.full((8, 8, 8), value, np.float32), np.random.default_rng(3))
        assert np.isfinite(varied).all()


def test_more_variation_moves_intensities_further() -> None:
    channel = head(0)[0]
    moved = [
        np.mean([np.abs(vary_intensity(channel, np.random.default_rng(seed), amount) - channel).mean() for seed in range(30)])
        for amount in (0.0, 0.6, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]
    assert moved[0] < 0.6 * moved[2]


def test_the_same_random_numbers_give_the_same_patch_and_the_source_is_not_changed() -> None:
    image = head(0)
    before, label = image.copy(), (image[0] > 0.5).astype(np.uint8)
    first, second = (augment(image, label, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(image, before)
