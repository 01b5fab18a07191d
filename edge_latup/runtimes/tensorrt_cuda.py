"""The GPU's memory, streams and properties through cuda-python (`cuda.bindings.runtime`), every error checked.

Contract-tested against NVIDIA's genuine bindings (tests/contracts/test_tensorrt_api.py); never executed on a GPU by this project's tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_latup.errors import EdgeLatupError, MissingDependencyError

MEMINFO: Final = Path("/proc/meminfo")
KERNEL_DRIVER: Final = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
MIB: Final = 1 << 20
MARGIN: Final = 512 * MIB
"""Left free of a GPU's own memory, for what shares it: a display, other programs."""
UNIFIED_MARGIN: Final = 1024 * MIB
"""Left free where CPU and GPU share the memory: there a build that takes all of it brings the system down."""
LEAST_WORKSPACE: Final = 64 * MIB
CLOSE: Final = "close what else uses the GPU, or build on a machine with more memory of the same GPU; on Jetson, turn the desktop off"


class DeviceMemoryError(EdgeLatupError):
    """The GPU has too little free memory."""

    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class Device:
    """GPU 0. `driver`: the kernel module's version and the newest CUDA it supports; bytes are those free now and all there are."""

    name: str
    compute_capability: str
    processors: int
    unified: bool
    driver: str
    free: int
    total: int

    @property
    def identity(self) -> str:
        """What an engine is tied to: two GPUs of one name may differ in their processors."""
        return f"{self.name} ({self.processors} multiprocessors, {round(self.total / MIB)} MiB)"


def check(answer: tuple[Any, ...], doing: str) -> Any:
    """What a CUDA call returned behind its status; a tuple where it is more than one value, None where nothing.

    Raises:
        DeviceMemoryError: there is too little memory.
        MissingDependencyError: any other failure; both name the call's error.
    """
    from cuda.bindings import runtime

    status, values = answer[0], answer[1:]
    if status == runtime.cudaError_t.cudaSuccess:
        return values[0] if len(values) == 1 else values or None
    name = _name_of(status)
    if status == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise DeviceMemoryError(f"the GPU has no memory left for {doing} ({name})", CLOSE)
    raise MissingDependencyError(f"CUDA refuses {doing}: {name}", "check the driver: nvidia-smi (on Jetson: tegrastats)")


def _name_of(status: Any) -> str:
    from cuda.bindings import runtime

    told = runtime.cudaGetErrorName(status)[1]
    return told.decode() if isinstance(told, bytes) else str(status)


def device_count() -> int:
    """CUDA devices here; 0 also where there is no driver."""
    from cuda.bindings import runtime

    status, count = runtime.cudaGetDeviceCount()
    return int(count) if status == runtime.cudaError_t.cudaSuccess else 0


def describe_device() -> Device:
    """GPU 0 as it is now.

    Raises:
        MissingDependencyError: CUDA does not answer.
    """
    from cuda.bindings import runtime

    told: runtime.cudaDeviceProp = check(runtime.cudaGetDeviceProperties(0), "the properties of GPU 0")
    free, total = check(runtime.cudaMemGetInfo(), "how much memory is free")
    newest = int(check(runtime.cudaDriverGetVersion(), "the version of its driver"))
    unified = bool(told.integrated)
    return Device(
        name=told.name.decode() if isinstance(told.name, bytes) else str(told.name), compute_capability=f"{told.major}.{told.minor}",
        processors=int(told.multiProcessorCount), unified=unified, driver=f"{kernel_driver()}, CUDA {newest // 1000}.{newest % 1000 // 10}",
        free=available(int(free)) if unified else int(free), total=int(total),
    )  # fmt: skip


def kernel_driver(places: tuple[Path, ...] = KERNEL_DRIVER) -> str:
    """Version of NVIDIA's kernel module, or "unknown driver"."""
    for place in places:
        try:
            found = re.search(r"\d+\.\d+(\.\d+)*", place.read_text(encoding="ascii", errors="replace"))
        except OSError:
            continue
        if found:
            return found[0]
    return "unknown driver"


def available(free: int, meminfo: Path = MEMINFO) -> int:
    """Bytes that can be had of unified memory: CUDA's own count leaves out what Linux would give back from its caches."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return free
    return int(found[1]) * 1024 if found else free


def workspace_bytes(free: int, *, unified: bool, needed: int, asked: int | None = None) -> int:
    """Scratch memory a build may take: what is free, less a margin and less what the build holds besides.

    Args:
        free: bytes, measured.
        unified: whether CPU and GPU share the memory.
        needed: bytes that inputs, outputs and weights take.
        asked: bytes from the options; taken where that much is there.

    Raises:
        DeviceMemoryError: less than `LEAST_WORKSPACE` is left, or less than was asked for.
    """
    margin = UNIFIED_MARGIN if unified else MARGIN
    left = free - margin - needed
    if left < max(LEAST_WORKSPACE, asked or 0):
        wanted = f"{(asked or LEAST_WORKSPACE) / MIB:,.0f} MiB of workspace"
        raise DeviceMemoryError(
            f"{free / MIB:,.0f} MiB are free: {needed / MIB:,.0f} for the model and a margin of {margin / MIB:,.0f} leave"
            f" {max(left, 0) / MIB:,.0f}, too little for {wanted}", CLOSE,
        )  # fmt: skip
    return asked or left


class Stream:
    """A CUDA stream with buffers of its own, all given back when it is closed."""

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._stream = check(runtime.cudaStreamCreate(), "a stream")
        self._buffers: list[int] = []

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return int(self._stream)

    def allocate(self, size: int, what: str) -> int:
        """Address of `size` bytes on the GPU.

        Raises:
            DeviceMemoryError: there are not so many.
        """
        from cuda.bindings import runtime

        address = int(check(runtime.cudaMalloc(size), f"{size / MIB:,.1f} MiB of {what}"))
        self._buffers.append(address)
        return address

    def upload(self, host: np.ndarray, address: int) -> None:
        """Queue a copy of a contiguous array to the GPU."""
        from cuda.bindings import runtime

        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(runtime.cudaMemcpyAsync(address, host.ctypes.data, host.nbytes, kind, self._stream), "copying the input")

    def download(self, address: int, host: np.ndarray) -> None:
        """Queue a copy from the GPU into a contiguous array."""
        from cuda.bindings import runtime

        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(runtime.cudaMemcpyAsync(host.ctypes.data, address, host.nbytes, kind, self._stream), "copying the output")

    def wait(self) -> None:
        """Until all that was queued is done.

        Raises:
            MissingDependencyError: a kernel failed.
        """
        from cuda.bindings import runtime

        check(runtime.cudaStreamSynchronize(self._stream), "finishing the inference")

    def close(self) -> None:
        """Give everything back; errors are of no use to anybody any more."""
        from cuda.bindings import runtime

        while self._buffers:
            runtime.cudaFree(self._buffers.pop())
        if self._stream is not None:
            runtime.cudaStreamDestroy(self._stream)
            self._stream = None
