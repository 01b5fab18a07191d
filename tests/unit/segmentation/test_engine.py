"""Segmentation of one case: the right voxels go in, and what comes out lies on the case's own grid.

The session is a stub that decides each voxel by its intensities alone, so that the right answer can be worked out by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_latup.cases.labels import to_canonical
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import ArtifactError, InputError
from edge_latup.runtimes.base import Batch, Kernel
from edge_latup.segmentation.engine import most_probable, segment
from edge_latup.segmentation.windows import window_boxes, window_starts
from edge_latup.spec import Blending, BrainCrop, CentreCrop, ModelSpec, Size, SlidingWindow

LPS = np.array([[-1.0, 0, 0, 100], [0, -1, 0, 120], [0, 0, 2, -70], [0, 0, 0, 1]])
MODALITIES = ("flair", "t1ce", "t2")


class Stub:
    """A session whose class scores are functions of the voxel's three intensities."""

    float_precision = "f32"

    def __init__(self, *input_shape: int, classes: int = 4) -> None:
        self.input_shape: tuple[int, ...] = input_shape
        self.batches: list[Batch] = []
        self.classes = classes

    def infer(self, batch: Batch) -> Batch:
        self.batches.append(batch)
        return scores(batch)[:, : self.classes]

    def executed_kernels(self) -> Sequence[Kernel]:
        return ()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return


@given(
    st.integers(1, 6).flatmap(lambda classes: arrays(np.float32, (classes, 3, 4, 2), elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])))
)
def test_the_most_probable_class_is_numpys_of_equals_too(output: np.ndarray) -> None:
    np.testing.assert_array_equal(most_probable(output), output.argmax(axis=0))
    turned = output.transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(most_probable(turned), turned.argmax(axis=0))


def test_more_classes_than_a_byte_counts_have_a_most_probable_one() -> None:
    output = np.zeros((300, 2, 2, 2), np.float32)
    output[299, 0], output[256, 1] = 1, 1
    np.testing.assert_array_equal(most_probable(output), output.argmax(axis=0))


def scores(batch: np.ndarray) -> np.ndarray:
    """Probabilities (N, 4, D, H, W): background, and one class for each modality."""
    raw = np.concatenate([np.full_like(batch[:, :1], 0.4), batch], axis=1) ** 3
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def spec_of(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "test", "spatial": CentreCrop(size=(8, 8, 8)), **changes})


def case_of(shape: Size, seed: int = 0, affine: np.ndarray = LPS) -> Case:
    rng = np.random.default_rng(seed)
    images = {modality: rng.random(shape, dtype=np.float32) * 900 for modality in MODALITIES}
    return Case(name="case", images=images, label=None, grid=Grid(shape=shape, affine=affine), convention="brats-2021")


def min_max(image: np.ndarray) -> np.ndarray:
    low, high = image.min(axis=(-3, -2, -1), keepdims=True), image.max(axis=(-3, -2, -1), keepdims=True)
    return (image - low) / np.where(high > low, high - low, 1)


def stacked(case: Case) -> np.ndarray:
    return np.stack([case.images[modality] for modality in MODALITIES])


def test_the_centre_crop_is_what_numpy_gives_by_hand() -> None:
    case, stub = case_of((20, 17, 12)), Stub(1, 3, 8, 8, 8)
    result = segment(stub, spec_of(), case)
    crop = min_max(stacked(case)[:, 6:14, 4:12, 2:10])
    np.testing.assert_allclose(stub.batches[0][0], crop, atol=1e-6)
    expected = np.zeros((20, 17, 12), np.uint8)
    expected[6:14, 4:12, 2:10] = scores(crop[None])[0].argmax(0)
    np.testing.assert_array_equal(result.label, expected)
    assert result.label.dtype == np.uint8
    assert len(np.unique(result.label)) == 4
    assert set(result.seconds) == {"normalise", "infer", "blend", "post-process"}
    assert all(seconds >= 0 for seconds in result.seconds.values())


def test_slices_are_normalised_before_the_crop_where_the_spec_says_so() -> None:
    case, stub = case_of((20, 17, 12)), Stub(1, 3, 8, 8, 8)
    segment(stub, spec_of(normalisation="per_slice_precrop"), case)
    volume = stacked(case)
    low, high = volume.min(axis=(1, 2), keepdims=True), volume.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(stub.batches[0][0], ((volume - low) / (high - low))[:, 6:14, 4:12, 2:10], atol=1e-6)


def every_orientation() -> list[str]:
    codes = ("LR", "PA", "SI")
    return ["".join(letters) for order in itertools.permutations(codes) for letters in itertools.product(*order)]


def stored_as(case: Case, orientation: str) -> Case:
    """The same anatomy with its array axes turned; only voxels and affine change."""
    image = nib.Nifti1Image(np.zeros(case.grid.shape, np.uint8), case.grid.affine)
    own, other = nib.io_orientation(case.grid.affine), nib.orientations.axcodes2ornt(tuple(orientation))
    turned = image.as_reoriented(nib.orientations.ornt_transform(own, other))
    images = {name: np.ascontiguousarray(case.grid.reorient(array, orientation)) for name, array in case.images.items()}
    grid = Grid(shape=turned.shape, affine=np.asarray(turned.affine))
    assert grid.orientation == orientation
    return Case(name=case.name, images=images, label=None, grid=grid, convention=case.convention)


@pytest.mark.parametrize("orientation", every_orientation())
def test_the_same_anatomy_gets_the_same_label_map_however_it_is_stored(orientation: str, tmp_path: Path) -> None:
    """All 48 orientations, among them RAS and LPS: compared in scanner space, through files as nibabel reads them."""
    case = case_of((12, 10, 14))
    expected = segment(Stub(1, 3, 8, 8, 8), spec_of(), case).label
    stored = stored_as(case, orientation)
    label = segment(Stub(1, 3, 8, 8, 8), spec_of(), stored).label
    assert label.shape == stored.grid.shape
    assert label.flags.c_contiguous
    write_label_map(label, stored, tmp_path / "out.nii.gz")
    image = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(image.affine, stored.grid.affine)
    back = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(LPS))
    found = image.as_reoriented(back)
    np.testing.assert_allclose(found.affine, LPS)
    np.testing.assert_array_equal(to_canonical(np.asarray(found.dataobj), "brats-2021", "out"), expected)


def test_the_spec_may_ask_for_another_orientation() -> None:
    case = case_of((12, 10, 14))
    stub = Stub(1, 3, 8, 8, 8)
    label = segment(stub, spec_of(orientation="RAS"), case).label
    # 12, 10 and 14 less 8 are even, so the centre crop holds the same voxels whichever way the axes run.
    np.testing.assert_allclose(stub.batches[0][0], min_max(stacked(case)[:, 2:10, 1:9, 3:11])[:, ::-1, ::-1], atol=1e-6)
    np.testing.assert_array_equal(label, segment(Stub(1, 3, 8, 8, 8), spec_of(), case).label)


@given(st.integers(1, 60), st.integers(1, 40), st.floats(0, 0.99))
def test_windows_cover_every_voxel_and_the_last_ends_with_the_volume(length: int, size: int, overlap: float) -> None:
    starts = window_starts(length, size, overlap)
    assert starts == sorted(set(starts))
    covered = set(itertools.chain.from_iterable(range(start, start + size) for start in starts))
    assert set(range(length)) <= covered
    if length > size:
        assert (starts[0], starts[-1]) == (0, length - size)
        strides = np.diff(starts)
        assert (strides <= max(1, np.ceil(size * (1 - overlap)))).all(), "never less overlap than asked for"
    else:
        assert len(starts) == 1


def test_the_brats_volume_takes_75_windows_of_64() -> None:
    boxes = window_boxes((240, 240, 155), SlidingWindow(size=(64, 64, 64), overlap=0.25))
    assert len(boxes) == 75
    assert sorted({box.start[0] for box in boxes}) == [0, 48, 96, 144, 176]
    assert sorted({box.start[2] for box in boxes}) == [0, 48, 91]


@pytest.mark.parametrize(("size", "overlap", "stride"), [(80, 0.9, 8), (200, 0.29, 142), (128, 0.25, 96), (64, 0.0, 64), (8, 0.99, 1)])
def test_the_stride_is_that_of_decimal_fractions(size: int, overlap: float, stride: int) -> None:
    assert window_starts(10 * size, size, overlap)[1] == stride


def naive(case: Case, size: Size, overlap: float) -> np.ndarray:
    """Mean class probabilities (4, x, y, z) in float64, window by window, voxel by voxel."""
    volume = stacked(case)
    shape = case.grid.shape
    total, count = np.zeros((4, *shape)), np.zeros(shape)
    for start in itertools.product(*(window_starts(n, s, overlap) for n, s in zip(shape, size, strict=True))):
        window = np.zeros((3, *size), np.float32)
        inside = [(i, j) for i, j in zip(np.ndindex(size), np.array(list(np.ndindex(size))) + start, strict=True)]
        inside = [(i, tuple(j)) for i, j in inside if all(0 <= a < n for a, n in zip(j, shape, strict=True))]
        for i, j in inside:
            window[(slice(None), *i)] = volume[(slice(None), *j)]
        found = scores(min_max(window)[None].astype(np.float32))[0].astype(np.float64)
        for i, j in inside:
            total[(slice(None), *j)] += found[(slice(None), *i)]
            count[j] += 1
    assert count.min() >= 1
    return np.asarray(total / count)


@settings(max_examples=8)
@given(st.tuples(*[st.integers(3, 13)] * 3), st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 3))
def test_sliding_windows_are_averaged(shape: Size, overlap: float, seed: int) -> None:
    """Also where the volume is smaller than the window along some axes, or all."""
    case, size = case_of(shape, seed), (8, 8, 8)
    label = segment(Stub(1, 3, *size), spec_of(spatial=SlidingWindow(size=size, overlap=overlap)), case).label
    mean = np.sort(naive(case, size, overlap), axis=0)
    clear = mean[-1] - mean[-2] > 1e-5  # float32 may decide a tie the other way
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(label[clear], naive(case, size, overlap).argmax(0)[clear])


@pytest.mark.parametrize(("shape", "overlap"), [((20, 17, 13), 0.25), ((8, 30, 9), 0.5), ((16, 16, 16), 0.0)])
def test_sliding_windows_are_those_of_monai(shape: Size, overlap: float) -> None:
    import torch
    from monai.inferers import sliding_window_inference

    case = case_of(shape)
    spec = spec_of(spatial=SlidingWindow(size=(8, 8, 8), overlap=overlap), normalisation="per_slice_precrop")
    volume = stacked(case)
    low, high = volume.min(axis=(1, 2), keepdims=True), volume.max(axis=(1, 2), keepdims=True)
    expected = sliding_window_inference(
        torch.from_numpy((volume - low) / (high - low))[None], (8, 8, 8), 1, lambda x: torch.from_numpy(scores(x.numpy())), overlap=overlap
    ).numpy()[0]  # fmt: skip
    ranked = np.sort(expected, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-5
    np.testing.assert_array_equal(segment(Stub(1, 3, 8, 8, 8), spec, case).label[clear], expected.argmax(0)[clear])


@pytest.mark.parametrize("spatial", [CentreCrop(size=(8, 8, 8)), SlidingWindow(size=(8, 8, 8))])
def test_each_class_gets_the_label_its_spec_declares(spatial: CentreCrop | SlidingWindow) -> None:
    case = case_of((12, 12, 12))
    usual = segment(Stub(1, 3, 8, 8, 8), spec_of(spatial=spatial), case).label
    other = segment(Stub(1, 3, 8, 8, 8), spec_of(spatial=spatial, labels=(0, 2, 1, 3)), case).label
    np.testing.assert_array_equal(other, np.array([0, 2, 1, 3], np.uint8)[usual])


def test_outside_the_crop_is_background_whichever_class_that_is() -> None:
    label = segment(Stub(1, 3, 8, 8, 8), spec_of(labels=(3, 0, 1, 2)), case_of((12, 12, 12))).label
    outside = np.ones((12, 12, 12), bool)
    outside[2:10, 2:10, 2:10] = False
    assert (label[outside] == 0).all()
    assert 3 in label


@pytest.mark.parametrize("shape", [(3, 4, 5), (8, 8, 8), (7, 30, 8)])
def test_a_volume_smaller_than_the_crop_is_padded_and_comes_back_whole(shape: Size) -> None:
    label = segment(Stub(1, 3, 8, 8, 8), spec_of(), case_of(shape)).label
    assert label.shape == shape
    assert len(np.unique(label)) > 1


@pytest.mark.parametrize("input_shape", [(1, 3, 16, 16, 16), (1, 4, 8, 8, 8), (3, 8, 8, 8), (2, 3, 8, 8, 8)])
def test_a_session_of_another_size_is_refused_before_anything_is_run(input_shape: tuple[int, ...]) -> None:
    stub = Stub(*input_shape)
    with pytest.raises(InputError, match="the spec's centre-crop gives") as caught:
        segment(stub, spec_of(), case_of((12, 12, 12)))
    assert str(input_shape) in caught.value.message
    assert "(1, 3, 8, 8, 8)" in caught.value.message
    assert not stub.batches


def test_a_session_of_free_size_takes_what_the_spec_gives() -> None:
    case = case_of((12, 12, 12))
    np.testing.assert_array_equal(
        segment(Stub(1, 3, -1, -1, -1), spec_of(), case).label, segment(Stub(1, 3, 8, 8, 8), spec_of(), case).label
    )


def test_a_model_with_other_classes_than_the_spec_is_refused() -> None:
    with pytest.raises(ArtifactError, match="the model gives 3 classes, its spec declares 4 labels"):
        segment(Stub(1, 3, 8, 8, 8, classes=3), spec_of(), case_of((12, 12, 12)))


@pytest.mark.parametrize("spatial", [CentreCrop(size=(8, 8, 8)), SlidingWindow(size=(8, 8, 8))])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_a_number_never_becomes_a_label_map(
    spatial: CentreCrop | SlidingWindow, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(stub: Stub, batch: Batch) -> Batch:
        found = scores(batch)
        found[0, 2, 1, 1, 1] = value
        return found

    monkeypatch.setattr(Stub, "infer", broken)
    with pytest.raises(ArtifactError, match="holds NaN or infinity"):
        segment(Stub(1, 3, 8, 8, 8), spec_of(spatial=spatial), case_of((12, 12, 12)))


def test_the_case_is_not_changed() -> None:
    case = case_of((12, 12, 12))
    before = stacked(case).copy()
    for spatial in (CentreCrop(size=(8, 8, 8)), SlidingWindow(size=(8, 8, 8))):
        segment(Stub(1, 3, 8, 8, 8), spec_of(spatial=spatial), case)
    np.testing.assert_array_equal(stacked(case), before)


# Networks whose output is smaller than their input, and networks whose channels are regions.


class Valid(Stub):
    """A network without padding: each voxel's scores from the sum over its neighbourhood, which reaches `margin` voxels far."""

    def __init__(self, margin: Size, size: Size) -> None:
        super().__init__(1, 3, *size)
        self.margin = margin

    def infer(self, batch: Batch) -> Batch:
        self.batches.append(batch)
        return neighbourhood_scores(batch, self.margin)


def neighbourhood_scores(batch: np.ndarray, margin: Size) -> np.ndarray:
    """(N, 4, smaller): weighted sums, so that a shifted or mirrored neighbourhood gives another result."""
    reach = [2 * lost + 1 for lost in margin]
    weights = np.random.default_rng(3).random(reach)
    around = np.lib.stride_tricks.sliding_window_view(batch.astype(np.float64), reach, axis=(2, 3, 4))
    return scores(np.einsum("ncxyzabd,abd->ncxyz", around, weights / weights.sum()).astype(np.float32))


@settings(max_examples=12)
@given(
    st.tuples(*[st.integers(3, 14)] * 3), st.tuples(*[st.integers(0, 2)] * 3), st.sampled_from([0.0, 0.4]), st.booleans(),
    st.sampled_from(["constant", "gaussian"]), st.integers(0, 3),
)  # fmt: skip
def test_every_voxel_is_predicted_with_its_whole_context(
    shape: Size, margin: Size, overlap: float, mirror: bool, blending: Blending, seed: int
) -> None:
    """As one pass over the volume padded with zeros by the margin: windows that overlap agree, so blending changes nothing."""
    case, size = case_of(shape, seed), tuple(4 + 2 * lost for lost in margin)
    policy = SlidingWindow(size=size, overlap=overlap, blending=blending, skip_air=False)
    views = ("mirror",) if mirror else ("identity",)
    spec = spec_of(spatial=policy, output_margin=margin, normalisation="none", divisor=1, views=views)
    result = segment(Valid(margin, size), spec, case)
    image = np.flip(stacked(case), 1) if mirror else stacked(case)
    padded = np.pad(image, [(0, 0), *((lost, lost) for lost in margin)])
    whole = neighbourhood_scores(padded[None], margin)[0]
    whole = np.flip(whole, 1) if mirror else whole
    ranked = np.sort(whole, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-5
    np.testing.assert_array_equal(result.label[clear], whole.argmax(0)[clear])
    assert result.label.shape == shape


def test_a_centre_crop_predicts_its_inside() -> None:
    case = case_of((12, 12, 12))
    label = segment(Valid((1, 0, 2), (8, 8, 8)), spec_of(output_margin=(1, 0, 2), normalisation="none"), case).label
    crop = stacked(case)[:, 2:10, 2:10, 2:10]
    expected = np.zeros((12, 12, 12), np.uint8)
    expected[3:9, 2:10, 4:8] = neighbourhood_scores(crop[None], (1, 0, 2))[0].argmax(0)
    np.testing.assert_array_equal(label, expected)


def test_an_output_of_another_size_than_declared_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"gives \(6, 8, 8\) for \(8, 8, 8\), its spec declares \(8, 8, 8\)") as caught:
        segment(Valid((1, 0, 0), (8, 8, 8)), spec_of(), case_of((12, 12, 12)))
    assert "output_margin" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spatial": BrainCrop(size=(8, 8, 8))}, "brain-crop would miss part of the head"),
        ({"spatial": SlidingWindow(size=(4, 8, 8)), "divisor": 1}, "leaves nothing inside"),
        ({"views": ("identity", "rotate")}, "not square"),
    ],
)
def test_a_margin_that_does_not_suit_the_policy_is_refused(changes: dict[str, object], told: str) -> None:
    """In a spec, and where a run overrides what the spec declares."""
    with pytest.raises(ValueError, match=told):
        spec_of(output_margin=(2, 1, 1), **changes)
    overridden = spec_of(output_margin=(2, 1, 1)).model_copy(update=changes)
    stub = Stub(1, 3, 8, 8, 8)
    with pytest.raises(InputError, match=told):
        segment(stub, overridden, case_of((12, 12, 12)))
    assert not stub.batches


@pytest.mark.parametrize("spatial", [CentreCrop(size=(8, 8, 8)), SlidingWindow(size=(8, 8, 8), skip_air=False)])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_regions_are_painted_where_they_are_likely(spatial: CentreCrop | SlidingWindow, threshold: float | None) -> None:
    case, limit = case_of((8, 8, 8)), threshold or 0.5
    spec = spec_of(
        spatial=spatial, regions={"order": ("TC", "ET", "WT")}, normalisation="per_volume_postcrop", post_process={"threshold": threshold}
    )
    core, enhancing, whole = scores(min_max(stacked(case))[None])[0, :3] > limit
    expected = np.where(enhancing, 3, np.where(core, 1, np.where(whole, 2, 0)))
    np.testing.assert_array_equal(segment(Stub(1, 3, 8, 8, 8, classes=3), spec, case).label, expected)
    assert len(np.unique(expected)) == 4


def test_a_model_with_other_channels_than_regions_is_refused() -> None:
    with pytest.raises(ArtifactError, match="the model gives 4 classes, its spec declares 3 regions"):
        segment(Stub(1, 3, 8, 8, 8), spec_of(regions={"order": ("WT", "TC", "ET")}), case_of((8, 8, 8)))


@pytest.mark.parametrize("normalisation", ["z_score_nonzero", "none"])
def test_air_is_told_from_head_by_raw_intensities(normalisation: str) -> None:
    """Of z-scores half of the head lies below 0, and below any share of the largest value."""
    case = case_of((24, 8, 8))
    for image in case.images.values():
        image[:] = 500  # a head of nearly one intensity, but for one bright voxel
        image[::2] = 510
        image[0, 0, 0] = 9000
        image[16:] = 0
    spec = spec_of(spatial=SlidingWindow(size=(8, 8, 8), overlap=0.0), normalisation=normalisation)
    assert segment(Stub(1, 3, 8, 8, 8), spec, case).windows_run == 2
