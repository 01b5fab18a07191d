"""Archives that are as they should be for every other tool, and members that are not where they should be."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import LABEL, TODAY, Member, archive_of, tar_of, unpacked, watched, write_form

from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.unpack import unpack_verified
from edge_latup.bundle.verify import verify
from edge_latup.errors import VerificationError


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
def test_every_other_tool_reads_the_same(good: list[Member], form: str) -> None:
    """Python's own readers as the independent reference."""
    archive, expected = archive_of(form, good), {f"{LABEL}/{m.path}": (m.content, m.executable) for m in good}
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            assert file.testzip() is None
            found = {i.filename: (file.read(i), bool(i.external_attr >> 16 & 0o111)) for i in file.infolist()}
    else:
        with tarfile.open(fileobj=io.BytesIO(unpacked(archive))) as tar:
            assert unpacked(archive) == tar_of(good)  # what the other tests pack
            found = {i.name: (tar.extractfile(i).read(), bool(i.mode & 0o111)) for i in tar if i.isreg()}  # type: ignore[union-attr]
    assert found == expected


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
@pytest.mark.parametrize(
    ("name", "why"),
    [("twice", "install.sh is in the archive twice"), ("at the end again", "install.sh is in the archive twice"),
     ("in another order", "install.ps1 is missing, or not in its place"), ("in another folder", "was renamed: its folder is not")],
)  # fmt: skip
def test_members_have_one_place(good: list[Member], refused: Callable[[Path], str], tmp_path: Path, form: str, name: str, why: str) -> None:
    at = next(index for index, member in enumerate(good) if member.path == "install.sh")
    members = {
        "twice": [*good[: at + 1], good[at], *good[at + 1 :]],
        "at the end again": [*good, good[at]],
        "in another order": [*good[: at - 1], good[at], good[at - 1], *good[at + 1 :]],
        "in another folder": good,
    }[name]
    label = "latup" if name == "in another folder" else LABEL
    assert why in refused(write_form(form, members, tmp_path, label))


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
def test_no_prefix_of_an_archive_is_accepted_or_written(good: list[Member], key: SigningKey, tmp_path: Path, form: str) -> None:
    archive = archive_of(form, good)
    path = tmp_path / "bundle"
    for size in [*range(0, len(archive), 211), *range(len(archive) - 60, len(archive))]:
        path.write_bytes(archive[:size])
        with watched(path) as deeds, pytest.raises(VerificationError):
            unpack_verified(path, key.public, tmp_path / "out", today=TODAY)
        assert deeds.wrote == []
    path.write_bytes(archive)
    assert verify(path, key.public, today=TODAY).digest
