"""Label conventions: each data set's numbers mean 1 necrotic core, 2 oedema, 3 enhancing tumour, there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from edge_latup.cases.labels import FROM_CANONICAL, TO_CANONICAL, Convention, convention_of, distinct_values, from_canonical, to_canonical
from edge_latup.errors import CaseError

CONVENTIONS = list(TO_CANONICAL)
canonical_maps = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, 3))


@given(canonical_maps, st.sampled_from(CONVENTIONS))
def test_written_in_any_convention_and_read_back_is_the_identity(label: NDArray[np.uint8], convention: Convention) -> None:
    written = from_canonical(label, convention)
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(to_canonical(written, convention, "x"), label)


@given(canonical_maps, st.sampled_from(["brats-2023", "brats-2021", "msd"]), st.sampled_from([np.float32, np.int16, np.uint8]))
def test_read_and_written_back_in_its_own_convention_is_the_identity(
    label: NDArray[np.uint8], convention: Convention, dtype: type[np.generic]
) -> None:
    numbers = from_canonical(label, convention).astype(dtype)
    np.testing.assert_array_equal(from_canonical(to_canonical(numbers, convention, "x"), convention), numbers)


@given(canonical_maps, arrays(np.bool_, 125), st.sampled_from([np.float32, np.int16, np.uint8]))
def test_brats_2013_comes_back_with_its_two_kinds_of_core_as_one(
    label: NDArray[np.uint8], necrotic: NDArray[np.bool_], dtype: type[np.generic]
) -> None:
    """The one loss of all round trips: 3 becomes 1, and every other number stays what it was."""
    numbers = from_canonical(label, "brats-2013").astype(dtype)
    numbers[(label == 1) & necrotic[: label.size].reshape(label.shape)] = 3
    written = from_canonical(to_canonical(numbers, "brats-2013", "x"), "brats-2013")
    np.testing.assert_array_equal(written, np.where(numbers == 3, 1, numbers))


@given(canonical_maps, st.sampled_from(CONVENTIONS))
def test_the_convention_told_by_name_and_values_gives_the_labels_back(label: NDArray[np.uint8], convention: Convention) -> None:
    numbers = from_canonical(label, convention)
    found = convention_of({int(value) for value in distinct_values(numbers)}, convention)
    np.testing.assert_array_equal(to_canonical(numbers, found, "x"), label)
    np.testing.assert_array_equal(from_canonical(label, found), numbers)


@given(
    st.one_of(
        arrays(np.float32, 30, elements=st.floats(width=32, allow_nan=False)),
        arrays(np.float32, 30, elements=st.integers(0, 255)),
        arrays(np.float32, 30, elements=st.integers(0, 5)),
        arrays(np.int16, 30),
        arrays(np.int64, 30),
        arrays(np.uint8, 30),
        arrays(np.int8, 30),
    )
)
def test_the_values_that_occur_are_those_numpy_finds(label: NDArray[np.generic]) -> None:
    assert distinct_values(label) == [float(value) for value in np.unique(label)]


@pytest.mark.parametrize(
    ("convention", "numbers", "canonical"),
    [
        ("brats-2023", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("brats-2021", [0, 1, 2, 4], [0, 1, 2, 3]),
        ("brats-2013", [0, 1, 2, 3, 4], [0, 1, 2, 1, 3]),
        ("msd", [0, 1, 2, 3], [0, 2, 1, 3]),
    ],
)
def test_what_the_numbers_mean(convention: Convention, numbers: list[int], canonical: list[int]) -> None:
    np.testing.assert_array_equal(to_canonical(np.array(numbers), convention, "x"), canonical)


@pytest.mark.parametrize(("convention", "enhancing"), [("brats-2023", 3), ("brats-2021", 4), ("brats-2013", 4), ("msd", 3)])
def test_enhancing_tumour_is_written_as_its_data_set_numbers_it(convention: Convention, enhancing: int) -> None:
    assert from_canonical(np.array([3], np.uint8), convention)[0] == enhancing


def test_the_non_enhancing_core_of_2013_comes_back_as_core() -> None:
    """2013 splits the core into 1 and 3; the canonical labels do not, so it is written as 1."""
    read = to_canonical(np.array([1, 3, 4]), "brats-2013", "x")
    np.testing.assert_array_equal(from_canonical(read, "brats-2013"), [1, 1, 4])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_written_number_is_one_of_the_convention(convention: Convention) -> None:
    assert set(FROM_CANONICAL[convention]) <= TO_CANONICAL[convention].keys()


@pytest.mark.parametrize(
    ("values", "named", "found"),
    [
        ({0, 1, 2, 3}, "brats-2023", "brats-2023"),
        ({0, 1, 2, 3}, "brats-2021", "brats-2023"),
        ({0, 1, 2, 4}, "brats-2021", "brats-2021"),
        ({0, 1, 2, 4}, "brats-2023", "brats-2023"),
        ({0, 1, 2, 3, 4}, "brats-2023", "brats-2023"),
        ({0, 1, 2, 3, 4}, "brats-2021", "brats-2013"),
        ({0, 1, 2}, "brats-2021", "brats-2021"),
        ({0, 1, 2}, "brats-2023", "brats-2023"),
        ({0}, "brats-2021", "brats-2021"),
        ({0, 1, 2, 3}, "msd", "msd"),
        ({0, 4}, "msd", "msd"),
        ({0, 1, 2, 3, 4}, "brats-2013", "brats-2013"),
        ({0, 1, 2, 3}, "brats-2013", "brats-2013"),
        ({0, 1, 2, 4}, "brats-2013", "brats-2013"),
        ({0, 1, 2}, "brats-2013", "brats-2013"),
    ],
)
def test_the_values_correct_what_the_names_say(values: set[int], named: Convention, found: Convention) -> None:
    assert convention_of(values, named) == found


def test_the_cavity_of_2024_is_not_taken_for_tumour() -> None:
    """BraTS 2024 names its files as 2023 does, and calls the resection cavity 4; 2021 called enhancing tumour that."""
    for values in ([0, 1, 2, 3, 4], [0, 2, 4]):
        label = np.array(values)
        with pytest.raises(CaseError, match=r"holds label values \[4\.0\], which brats-2023 does not have") as caught:
            to_canonical(label, convention_of(set(values), "brats-2023"), "x-seg.nii.gz")
        assert "resection cavity" in caught.value.hint


@pytest.mark.parametrize("value", [4, -1, 255, 0.5, 2.999])
def test_a_value_the_convention_lacks_is_refused_with_the_ones_it_has(value: float) -> None:
    with pytest.raises(CaseError, match=r"exam\.nii holds label values .* brats-2023 does not have \(it has \[0, 1, 2, 3\]\)") as caught:
        to_canonical(np.array([0, value]), "brats-2023", "exam.nii")
    assert str(value) in caught.value.message
    assert caught.value.hint


def test_an_image_taken_for_a_label_gives_a_short_message() -> None:
    with pytest.raises(CaseError) as caught:
        to_canonical(np.arange(5000), "brats-2023", "exam.nii")
    assert len(caught.value.message) < 200
