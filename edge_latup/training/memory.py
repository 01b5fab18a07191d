"""How the C library hands memory out during training."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_MAX: Final = -4
"""Parameters of mallopt(3), from glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Let glibc reuse what PyTorch frees instead of returning it to the system.

    Every step allocates the same large tensors anew; as mappings of their own, each is faulted in and zeroed page by page. The
    process keeps its peak memory from then on.

    Returns:
        Whether the C library took the settings; False where it is not glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28))
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)
