"""edge-latup's own wheel, made again from what is installed: the same installation gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Final

from edge_latup.errors import MissingDependencyError

NAME: Final = "edge-latup"
DEMO: Final = "edge_latup/demo/"
"""The demo network stays behind: a bundle brings the network it was made for."""
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can state; the files' own times would make every wheel another one."""


def build_own_wheel(folder: Path) -> Path:
    """Write edge_latup-VERSION-py3-none-any.whl of the installed package into `folder`.

    Raises:
        MissingDependencyError: edge-latup runs from a source tree, or is installed editable, so that no list of its files exists.
    """
    installed = _installed()
    info = f"edge_latup-{installed.version}.dist-info"
    contents = {name: content for name, content in _contents(installed, info).items() if not name.startswith(DEMO)}
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in sorted(contents.items()))
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"edge_latup-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in sorted(contents, key=lambda name: (name.startswith(info), name)):  # PEP 427: .dist-info last
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            wheel.writestr(entry, contents[name])
    return path


def _installed() -> Distribution:
    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        raise MissingDependencyError("edge-latup is not installed, so its wheel cannot be made", "pip install .") from None
    if not any(str(path) == "edge_latup/__init__.py" for path in found.files or ()):
        raise MissingDependencyError("edge-latup is installed editable, so its wheel cannot be made", "install it whole: pip install .")
    return found


def _contents(installed: Distribution, info: str) -> dict[str, bytes]:
    """Name in the wheel and bytes of every file of the package, and of the metadata that is the same wherever it is installed."""
    contents = {}
    for path in installed.files or ():
        name = PurePosixPath(path)
        if (name.parts[0] == "edge_latup" and "__pycache__" not in name.parts) or (
            name.parts[0] == info and (name.name in ("METADATA", "WHEEL", "entry_points.txt") or "licenses" in name.parts)
        ):
            contents[str(name)] = Path(str(installed.locate_file(path))).read_bytes()
    return contents


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
