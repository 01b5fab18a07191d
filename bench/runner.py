"""The runner: the part of this package that a worker needs, in one zip that any host's Python can import from."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import edge_latup
from edge_latup import bench, targets

LEFT_OUT: Final = ("cli", "demo", "networks", "training", "export", "quantize", "bench", "targets")
"""Folders of the package that no worker imports; the two last are added in part."""
OF_BENCH: Final = ("__init__.py", "records.py", "worker.py", "remote_worker.py")
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Every file's time in the zip, so that the same sources give the same bytes and are copied once."""


def write_runner(path: Path) -> Path:
    """Write the zip; the same sources give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted(_sources()):
            archive.writestr(zipfile.ZipInfo(f"edge_latup/{name}", EPOCH), source.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def _sources() -> Iterator[tuple[str, Path]]:
    """Name inside the package, and file. Every room is asked for its own folder: in a source tree they lie apart."""
    root = Path(edge_latup.__path__[0])
    for room in root.iterdir():
        # A room may be a link, which rglob follows only where it begins.
        found = room.rglob("*.py") if room.is_dir() else [room] if room.suffix == ".py" else []
        yield from ((path.relative_to(root).as_posix(), path) for path in found if room.name not in LEFT_OUT)
    for name in OF_BENCH:
        yield f"bench/{name}", Path(bench.__path__[0]) / name
    for path in sorted(Path(targets.__path__[0]).glob("*.py")):
        yield f"targets/{path.name}", path
