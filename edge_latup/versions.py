"""Versions of the software that made or ran something, for manifests and records."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """The installed version of a distribution, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions_of(*packages: str) -> dict[str, str]:
    """Python's version and that of each distribution."""
    return {"python": platform.python_version(), **{package: version_of(package) for package in packages}}
