"""What a plain copy moves through this host's memory: the other ceiling of a network that does little arithmetic for each byte.

After STREAM's "copy" (McCalpin, https://www.cs.virginia.edu/stream/): two buffers far larger than the last cache, the best of several
runs, and both the bytes read and the bytes written counted. Where a store first fetches the line it overwrites, the memory moves half as
much again; that is not counted, as in STREAM.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError

TIMES_THE_CACHE: Final = 4
"""STREAM's rule: each buffer at least four times the last-level cache."""
LEAST_BYTES: Final = 64 * 2**20
MOST_OF_MEMORY: Final = 0.125
"""Of the host's memory, for each of the two buffers."""
RUNS: Final = 10
QUICK_RUNS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One measurement. gb_s: 10^9 bytes read and written a second, best run. buffer_bytes: of each of the two buffers."""

    gb_s: float
    buffer_bytes: int
    threads: int
    runs: int
    beyond_cache: bool
    """Whether the buffers are as much larger than the cache as STREAM asks for."""


def buffer_bytes(last_level_bytes: int, memory_bytes: int) -> int:
    """Size of each buffer: four times the last cache, no less than 64 MiB, no more than an eighth of the memory; whole pages."""
    wanted = max(TIMES_THE_CACHE * last_level_bytes, LEAST_BYTES)
    return min(wanted, int(memory_bytes * MOST_OF_MEMORY)) // 4096 * 4096


def copy_bandwidth(last_level_bytes: int, memory_bytes: int, threads: int, *, runs: int = RUNS) -> Copy:
    """Copy one buffer to another, `threads` slices at a time (NumPy copies without holding Python's lock).

    Raises:
        InputError: the host has too little memory for a buffer.
    """
    size = buffer_bytes(last_level_bytes, memory_bytes)
    if size < threads * 4096:
        raise InputError(f"{memory_bytes} bytes of memory are too few to measure a copy", "free memory, or measure on another host")
    source, target = (np.empty(size, np.uint8) for _ in range(2))
    pairs = list(_slices(source, target, threads))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_touch, pairs))  # each thread's pages first written by a thread, so that they exist before the clock starts
        seconds = [_timed(pool, pairs) for _ in range(runs)]
    enough = size >= TIMES_THE_CACHE * last_level_bytes and last_level_bytes > 0
    return Copy(gb_s=2 * size / min(seconds) / 1e9, buffer_bytes=size, threads=threads, runs=runs, beyond_cache=enough)


Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _slices(source: NDArray[np.uint8], target: NDArray[np.uint8], threads: int) -> Iterator[Pair]:
    """Neighbouring slices that cover both buffers, page by page."""
    edges = [len(source) // 4096 * index // threads * 4096 for index in range(threads)] + [len(source)]
    for begin, end in itertools.pairwise(edges):
        yield source[begin:end], target[begin:end]


def _touch(pair: Pair) -> None:
    pair[0].fill(1)
    pair[1].fill(0)


def _copy(pair: Pair) -> None:
    np.copyto(pair[1], pair[0])


def _timed(pool: ThreadPoolExecutor, pairs: list[Pair]) -> float:
    began = time.perf_counter()
    list(pool.map(_copy, pairs))
    return time.perf_counter() - began
