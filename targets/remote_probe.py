"""Runs on the other host, by whatever Python 3 is there, and prints one JSON object. Python 3.6 (JetPack 4) must understand it too."""

import json
import os
import platform
import shutil
import sys


def existing(path: str) -> str:
    """The nearest folder above `path` that exists."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:  # noqa: PTH112, PTH120
        path = os.path.dirname(path)  # noqa: PTH120
    return path


def version(module: str) -> object:
    """Version of an installed module, "unknown" where it does not say, None where it is not there."""
    import importlib.util

    try:
        if importlib.util.find_spec(module) is None:
            return None
        from importlib import metadata

        return metadata.version({"pynvml": "nvidia-ml-py"}.get(module, module))
    except Exception:  # noqa: BLE001  (a broken package must not end the probe)
        return "unknown"


def free_memory() -> object:
    """MemAvailable in bytes, None where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123
            found = [line.split()[1] for line in file if line.startswith("MemAvailable:")]
        return int(found[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def main(cache: str, modules: "list[str]") -> None:
    """Print what this host is."""
    cache = os.path.abspath(os.path.expanduser(cache))  # noqa: PTH100, PTH111
    told = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "free_disk": shutil.disk_usage(existing(cache)).free,
        "free_memory": free_memory(),
        "cache": cache,
        "modules": {module: version(module) for module in modules},
    }
    sys.stdout.write(json.dumps(told) + "\n")


main(sys.argv[1], sys.argv[2:])
