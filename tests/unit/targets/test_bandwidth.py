"""The copy: its buffers outgrow the cache but never the memory, its slices cover them once, and every byte really moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.errors import InputError
from edge_latup.targets import bandwidth
from edge_latup.targets.bandwidth import LEAST_BYTES, buffer_bytes, copy_bandwidth

MIB = 2**20


@given(st.integers(0, 512 * MIB), st.integers(256 * MIB, 2**42))
def test_buffers_outgrow_the_cache_and_never_the_memory(cache: int, memory: int) -> None:
    size = buffer_bytes(cache, memory)
    assert size % 4096 == 0
    assert size <= memory / 8
    assert size > min(max(4 * cache, LEAST_BYTES), memory / 8) - 4096


@given(st.integers(1, 40), st.integers(1, 17))
def test_slices_cover_both_buffers_once(pages: int, threads: int) -> None:
    source, target = np.zeros(pages * 4096, np.uint8), np.zeros(pages * 4096, np.uint8)
    for first, second in bandwidth._slices(source, target, threads):
        assert first.base is source
        assert second.base is target
        assert len(first) == len(second)
        first += 1
        second += 1
    assert (source == 1).all()
    assert (target == 1).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_every_byte_is_copied_and_the_rate_follows_from_the_time(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LEAST_BYTES", 3 * MIB)
    moved = []
    monkeypatch.setattr(bandwidth, "_copy", lambda pair: (np.copyto(pair[1], pair[0]), moved.append((pair[1] == 1).all())))
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(clock))
    found = copy_bandwidth(0, 2**40, threads, runs=4)
    assert len(moved) == 4 * threads
    assert all(moved)
    assert found.gb_s == pytest.approx(2 * 3 * MIB / 2 / 1e9), "each run took two seconds of this clock, and bytes count twice"
    assert (found.buffer_bytes, found.threads, found.runs) == (3 * MIB, threads, 4)


def test_the_best_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LEAST_BYTES", MIB)
    clock = iter([0, 5, 10, 11, 20, 23])
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(clock))
    assert copy_bandwidth(0, 2**40, 1, runs=3).gb_s == pytest.approx(2 * MIB / 1 / 1e9)


def test_it_is_said_whether_the_copy_left_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LEAST_BYTES", MIB)
    assert not copy_bandwidth(0, 2**40, 1, runs=1).beyond_cache, "the cache is not known"
    assert copy_bandwidth(MIB, 2**40, 1, runs=1).beyond_cache
    assert not copy_bandwidth(4 * MIB, 32 * MIB, 1, runs=1).beyond_cache, "an eighth of the memory fits into the cache"


def test_a_host_without_memory_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        copy_bandwidth(MIB, 8 * 4096, 4)
