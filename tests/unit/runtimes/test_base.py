"""What all runtimes share: which batches fit a model, how many threads are used, how kernels are counted."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError
from edge_latup.runtimes import choose_runtime
from edge_latup.runtimes.base import Kernel, SessionOptions, check_batch, installed, precision_summary, usable_cores

sides = st.tuples(*[st.integers(1, 20)] * 3)


@given(sides, sides, st.integers(1, 4))
def test_a_batch_fits_where_each_size_is_the_models_or_free_and_a_multiple(
    have: tuple[int, int, int], want: tuple[int, int, int], divisor: int
) -> None:
    free = tuple(-1 if side % 2 else side for side in want)
    fits = all(size == side or (side == -1 and size % divisor == 0) for size, side in zip(have, free, strict=True))
    batch = np.zeros((1, 2, *have), np.float32)
    if fits:
        np.testing.assert_array_equal(check_batch(batch, (1, 2, *free), divisor), batch)
    else:
        with pytest.raises(InputError):
            check_batch(batch, (1, 2, *free), divisor)


def test_a_contiguous_batch_is_not_copied() -> None:
    batch = np.zeros((1, 2, 8, 8, 8), np.float32)
    assert check_batch(batch, batch.shape, 8) is batch
    assert check_batch(np.asfortranarray(batch), batch.shape, 8).flags.c_contiguous


def test_both_shapes_are_named_and_the_multiple_only_where_a_size_is_free() -> None:
    with pytest.raises(InputError) as caught:
        check_batch(np.zeros((1, 3, 8, 8, 9), np.float32), (1, 3, 8, 8, 8), 8)
    assert caught.value.message == "the model takes float32 (1, 3, 8, 8, 8), got float32 (1, 3, 8, 8, 9)"
    with pytest.raises(InputError) as caught:
        check_batch(np.zeros((1, 3, 8, 8, 9), np.float32), (1, 3, 8, 8, -1), 8)
    assert "(1, 3, 8, 8, -1) with sizes in multiples of 8, got float32 (1, 3, 8, 8, 9)" in caught.value.message


def test_zero_threads_are_all_that_may_be_used() -> None:
    assert SessionOptions().thread_count == usable_cores() >= 1
    assert SessionOptions(threads=3).thread_count == 3


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores() == 1


def test_kernels_are_counted_by_precision() -> None:
    kernels = [Kernel(name=str(n), operation="Conv", precision=p, implementation="x") for n, p in enumerate(("i8", "f32", "i8"))]
    assert precision_summary(kernels) == {"i8": 2, "f32": 1}


def test_a_package_is_found_without_importing_it() -> None:
    assert installed("numpy")
    assert not installed("no_such_package_as_this")


def test_on_arm_an_artifact_for_both_runtimes_goes_to_onnx_runtime(
    tiny_fp32: Artifact, compressed: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    assert choose_runtime(tiny_fp32) == "openvino"
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert choose_runtime(tiny_fp32) == "onnxruntime"
    assert choose_runtime(tiny_fp32, "openvino") == "openvino"
    assert choose_runtime(compressed("int8", "openvino")) == "openvino"
