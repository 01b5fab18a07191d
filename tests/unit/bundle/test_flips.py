"""One changed byte, anywhere.

In a folder: refused, always. In an archive: refused, or the content is exactly what was signed, each path with its bytes and its
executable bit. The second happens only inside compressed streams, whose formats have spare bits that mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import FORMS, TODAY, Member, archive_of, members_of, place, write_form
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.unpack import unpack_verified
from edge_latup.bundle.verify import verify
from edge_latup.bundle.zipfields import CENTRAL, LOCAL
from edge_latup.errors import VerificationError

CHANGES = st.integers(1, 255)
PLACES = st.integers(0, 1 << 30)


def flipped(content: bytes, at: int, change: int) -> bytes:
    return content[:at] + bytes([content[at] ^ change]) + content[at + 1 :]


def content_of(members: list[Member]) -> dict[str, tuple[bytes, bool]]:
    return {member.path: (member.content, member.executable) for member in members}


def is_refused_or_the_same(path: Path, key: SigningKey, good: list[Member], out: Path) -> bool:
    """Whether it was refused; fails where anything but the signed content was accepted."""
    try:
        unpack_verified(path, key.public, out, today=TODAY)
    except VerificationError:
        assert not out.exists()
        return True
    assert content_of(members_of(out)) == content_of(good)
    out.rename(out.with_name(f"accepted-{len(list(out.parent.iterdir()))}"))
    return False


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60)
@given(nth=PLACES, at=PLACES, change=CHANGES)
def test_a_changed_byte_of_any_file_is_refused_by_its_name(
    good: list[Member], key: SigningKey, tmp_path_factory: pytest.TempPathFactory, form: str, nth: int, at: int, change: int
) -> None:
    folder = tmp_path_factory.mktemp("flip", numbered=True)
    nth %= len(good)
    if not good[nth].content:
        nth = 0
    old = good[nth]
    changed = Member(old.path, flipped(old.content, at % len(old.content), change), old.executable)
    members = [*good[:nth], changed, *good[nth + 1 :]]
    # A changed signature is a damaged file, or that of another manifest or key.
    named = r"^manifest\.(sig|json) " if old.path == "manifest.sig" else f"^{old.path.replace('.', '[.]')} "
    with pytest.raises(VerificationError, match=named):
        verify(write_form(form, members, folder), key.public, today=TODAY)


@pytest.mark.parametrize("form", ["tar.zst", "zip"])
@settings(max_examples=120)
@given(at=PLACES, change=CHANGES)
def test_a_changed_byte_of_an_archive_is_refused_or_means_nothing(
    good: list[Member], key: SigningKey, tmp_path_factory: pytest.TempPathFactory, form: str, at: int, change: int
) -> None:
    folder = tmp_path_factory.mktemp("flip", numbered=True)
    archive = archive_of(form, good) if form not in _archives else _archives[form]
    _archives[form] = archive
    path = folder / "bundle"
    path.write_bytes(flipped(archive, at % len(archive), change))
    is_refused_or_the_same(path, key, good, folder / "out")


_archives: dict[str, bytes] = {}


def test_a_changed_byte_of_a_zips_headers_is_always_refused(good: list[Member], key: SigningKey, tmp_path: Path) -> None:
    """Of what is not compressed content: both kinds of header and the end. Every byte: see the slow test below."""
    archive, path = archive_of("zip", good), tmp_path / "bundle.zip"
    places = [*range(archive.index(CENTRAL), len(archive))]
    start = archive.find(LOCAL)
    while start >= 0:
        places += range(start, start + 30 + archive[start + 26])
        start = archive.find(LOCAL, start + 1)
    assert len(places) > 1500
    for at in places[::5]:
        path.write_bytes(flipped(archive, at, 1))
        with pytest.raises(VerificationError):
            verify(path, key.public, today=TODAY)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tar.zst", "zip"])
def test_every_byte_of_an_archive(good: list[Member], key: SigningKey, tmp_path: Path, form: str) -> None:
    """And that the second outcome is not a dead branch: in a zip, a few spare bits of DEFLATE are found."""
    archive, path = archive_of(form, good), tmp_path / "bundle"
    accepted = 0
    for at in range(len(archive)):
        for change in (1, 0x80, 0xFF):
            path.write_bytes(flipped(archive, at, change))
            accepted += not is_refused_or_the_same(path, key, good, tmp_path / "out")
    assert accepted < len(archive) // 100


def test_the_folder_that_was_copied_is_still_good(good: list[Member], key: SigningKey, tmp_path: Path) -> None:
    """So that the properties above do not hold of a verifier that refuses everything."""
    for form in FORMS:
        assert verify(write_form(form, good, tmp_path), key.public, today=TODAY).form == form
    assert content_of(members_of(place(good, tmp_path / "again"))) == content_of(good)
