"""TensorRT where the machine has it, for an interpreter that sees none of the machine's packages.

An installed bundle is run with `python -I -S`: nothing of the system's or the user's packages is seen. TensorRT itself comes with JetPack,
or is installed by IT, and is in no bundle. So its modules alone are looked for where the same Python, started as usual but isolated from
the environment and the user's own packages, finds `tensorrt`. Nothing is copied, linked or written; every other import stays as it was.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

PACKAGE: Final = "tensorrt"
ASK: Final = (
    "import importlib.util as u, json, os; s = u.find_spec('tensorrt'); "
    "print(json.dumps([os.path.dirname(p) for p in s.submodule_search_locations or []] if s else []))"
)
"""Where the package lies; it is not imported."""
LONGEST: Final = 30
"""Seconds that the interpreter may take to answer."""


def allow_system_tensorrt() -> bool:
    """From now on `import tensorrt` also looks where this interpreter's own packages lie; only where those are shut out, else False."""
    shut_out = bool(sys.flags.no_site) and not getattr(sys, "frozen", False)  # a frozen program is no interpreter that could be asked
    if shut_out and not any(isinstance(finder, SystemTensorRt) for finder in sys.meta_path):
        sys.meta_path.append(SystemTensorRt())
    return shut_out


class SystemTensorRt(importlib.metadata.DistributionFinder):
    """Finds `tensorrt` and the packages it consists of (`tensorrt_bindings`, `tensorrt_libs`), and their versions; nothing else."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`; what lies inside a package is found by the package's own path."""
        return PathFinder.find_spec(name, list(system_folders()), target) if path is None and is_part(name) else None

    def find_distributions(
        self,
        context: importlib.metadata.DistributionFinder.Context = importlib.metadata.DistributionFinder.Context(),  # noqa: B008
    ) -> Iterable[importlib.metadata.Distribution]:
        """See `importlib.metadata.DistributionFinder`; only where a part of TensorRT is asked for by name."""
        if not context.name or not is_part(context.name.replace("-", "_")):
            return ()
        return importlib.metadata.MetadataPathFinder.find_distributions(
            importlib.metadata.DistributionFinder.Context(name=context.name, path=list(system_folders()))
        )


def is_part(name: str) -> bool:
    """Whether a top-level module belongs to TensorRT."""
    return name == PACKAGE or name.startswith(f"{PACKAGE}_")


@functools.cache
def system_folders() -> tuple[str, ...]:
    """Folders in which this interpreter, started as usual but isolated (-I), finds the package; empty where it finds none."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", ASK], check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=LONGEST
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ()
    return tuple(str(folder) for folder in told) if isinstance(told, list) else ()
