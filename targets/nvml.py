"""NVIDIA's management library, where nvidia-ml-py is installed: memory, power, clocks, load and throttle reasons of each GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Final

THROTTLE_REASONS: Final[dict[int, str]] = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits that mean slower than asked for. Idle, application clocks, sync boost and display clocks are no throttling. Source: nvml.h."""


class Nvml:
    """The GPUs of this machine."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        library.nvmlInit()
        self._devices = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]

    def sample(self) -> list[dict[str, Any]]:
        """One dictionary a GPU; None for what it does not tell, as many do of some."""
        return [self._one(device) for device in self._devices]

    def _one(self, device: Any) -> dict[str, Any]:
        nvml = self._nvml
        return {
            "name": self._ask(lambda: _text(nvml.nvmlDeviceGetName(device))),
            "milliwatts": self._ask(lambda: int(nvml.nvmlDeviceGetPowerUsage(device))),
            "memory_used": self._ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(device).used)),
            "load": self._ask(lambda: int(nvml.nvmlDeviceGetUtilizationRates(device).gpu)),
            "temperature": self._ask(lambda: int(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))),
            "sm_mhz": self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM))),
            "memory_mhz": self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM))),
            "throttle": self._ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device))),
        }

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (self._nvml.NVMLError, AttributeError):
            return None


def open_nvml() -> Nvml | None:
    """The library, where it is installed and finds a driver; None elsewhere."""
    try:
        library = importlib.import_module("pynvml")
        found = Nvml(library)
    except Exception:  # noqa: BLE001  (a driver that does not answer must not end a measurement)
        return None
    return found


def throttled(bits: Iterable[int | None]) -> tuple[str, ...]:
    """The reasons that were told at any time."""
    told = 0
    for some in bits:
        told |= some or 0
    return tuple(name for bit, name in THROTTLE_REASONS.items() if told & bit)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
