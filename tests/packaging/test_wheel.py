"""The wheel holds all that the repository publishes, under one name."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

import pytest


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_nothing_generic_lands_in_site_packages(members: set[str]) -> None:
    top = {name.split("/")[0] for name in members}
    assert {name for name in top if not name.endswith(".dist-info")} == {"edge_latup"}


def test_every_python_folder_is_a_package(sources: dict[str, Path]) -> None:
    folders = {PurePosixPath(name).parent for name in sources if name.endswith(".py")}
    bare = sorted(str(folder) for folder in folders if f"{folder}/__init__.py" not in sources)
    assert not bare, f"these folders hold modules but no __init__.py: {bare}"


def test_every_package_is_listed(sources: dict[str, Path], members: set[str]) -> None:
    packages = [str(PurePosixPath(name).parent).replace("/", ".") for name in sources if name.endswith("/__init__.py")]
    missing = [package for package in packages if f"{package.replace('.', '/')}/__init__.py" not in members]
    lines = "\n".join(f'    "{package}",' for package in missing)
    assert not missing, f"add to [tool.setuptools] packages in pyproject.toml:\n{lines}"


def test_every_data_file_is_inside(sources: dict[str, Path], members: set[str]) -> None:
    data = {name for name in sources if not name.endswith((".py", "/README.md"))}
    missing = sorted(data - members)
    assert not missing, f"name these in [tool.setuptools.package-data], or move them out of the package: {missing}"


def test_types_and_licence_are_inside(members: set[str]) -> None:
    assert "edge_latup/py.typed" in members
    licences = {PurePosixPath(name).name for name in members if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_the_command_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "edge-latup = edge_latup.cli:main" in archive.read(name).decode()
