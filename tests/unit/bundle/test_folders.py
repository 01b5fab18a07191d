"""What only a folder can be falsified with: links, special files, names that some systems take for others."""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import TODAY, Member, place

from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.verify import verify
from edge_latup.errors import VerificationError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="made with POSIX calls")


def _link_to_copy(folder: Path) -> None:
    (folder / "install.sh").rename(folder.parent / "install.sh")
    (folder / "install.sh").symlink_to(folder.parent / "install.sh")


def _link_inside(folder: Path) -> None:
    (folder / "segment").unlink()
    (folder / "segment").symlink_to("install.sh")  # which has the same content


def _linked_folder(folder: Path) -> None:
    (folder / "artifact").rename(folder.parent / "artifact")
    (folder / "artifact").symlink_to(folder.parent / "artifact", target_is_directory=True)


def _linked_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "manifest.json")
    (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")


def _hard_link(folder: Path) -> None:
    os.link(folder / "artifact/model.onnx", folder.parent / "elsewhere")


def _fifo(folder: Path) -> None:
    (folder / "empty").unlink()
    os.mkfifo(folder / "empty")


def _fifo_as_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's whole path may have 108 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("a-socket")
    os.chdir(here)


def _device(folder: Path) -> None:
    try:
        os.mknod(folder / "zero", 0o20644, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def _folder_for_file(folder: Path) -> None:
    (folder / "empty").unlink()
    (folder / "empty").mkdir()


def _mode(name: str, mode: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).chmod(mode)


def _touch(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).touch()


ALTERATIONS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "link to a copy outside": (_link_to_copy, "install.sh", "symbolic link"),
    "link to a file inside": (_link_inside, "segment", "symbolic link"),
    "dangling link added": (lambda folder: (folder / "x").symlink_to("nowhere"), "x", "symbolic link"),
    "folder linked": (_linked_folder, "artifact", "symbolic link"),
    "manifest linked": (_linked_manifest, "manifest.json", "symbolic link"),
    "hard link": (_hard_link, "artifact/model.onnx", "hard links"),
    "FIFO for a file": (_fifo, "empty", "FIFO"),
    "FIFO for the manifest": (_fifo_as_manifest, "manifest.json", "FIFO"),
    "socket added": (_socket, "a-socket", "socket"),
    "device added": (_device, "zero", "device"),
    "folder for a file": (_folder_for_file, "empty", "was added"),
    "empty folder added": (lambda folder: (folder / "lib").mkdir(), "lib", "was added"),
    "set-user-id": (_mode("install.sh", 0o4755), "install.sh", "set-user-id"),
    "executable for the group only": (_mode("empty", 0o654), "empty", "executable bit"),
    "manifest executable": (_mode("manifest.json", 0o755), "manifest.json", "executable bit"),
    "decomposed name added": (_touch(unicodedata.normalize("NFD", "r\u00e9sum\u00e9")), "re\\u0301sume\\u0301", "was added"),
    "full-width name added": (_touch("\uff33egment"), "\\uff33egment", "was added"),
    "name that is not UTF-8 added": (_touch(os.fsdecode(b"\xff\xfe")), "\\udcff\\udcfe", "was added"),
    "name that steers a terminal added": (_touch("\x1b[2Jok\n"), "\\x1b[2Jok\\n", "was added"),
    "name with a trailing space added": (_touch("install.sh "), "install.sh ", "was added"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_folder_is_refused_and_the_file_named(
    good: list[Member], refused: Callable[[Path], str], tmp_path: Path, name: str
) -> None:
    alter, file, why = ALTERATIONS[name]
    folder = place(good, tmp_path / "bundle")
    alter(folder)
    message = refused(folder)
    assert message.startswith(f"{file} "), message
    assert why in message


def test_the_way_to_the_folder_may_be_a_link(good: list[Member], key: SigningKey, tmp_path: Path) -> None:
    place(good, tmp_path / "bundle")
    (tmp_path / "current").symlink_to("bundle")
    assert verify(tmp_path / "current", key.public, today=TODAY).manifest.version == "1.2.0"


def test_no_file_is_read_before_the_tree_is_known_to_be_right(good: list[Member], key: SigningKey, tmp_path: Path) -> None:
    folder = place(good, tmp_path / "bundle")
    (folder / "zz").mkdir()
    for number in range(300):
        (folder / "zz" / str(number)).touch()
    opened: list[str] = []
    real = os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", lambda path, *rest: (opened.append(Path(path).name), real(path, *rest))[1])
        with pytest.raises(VerificationError, match="zz was added"):
            verify(folder, key.public, today=TODAY)
    assert opened == ["manifest.json", "manifest.sig"]


def _vanishes(path: Path) -> None:
    path.unlink()


def _becomes_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("install.sh")  # which has the same content and mode


def _becomes_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(("change", "why"), [(_vanishes, "missing"), (_becomes_a_link, "a symbolic link"), (_becomes_a_fifo, "a FIFO")])
def test_a_file_that_changes_after_the_tree_was_right_is_refused(
    good: list[Member], key: SigningKey, tmp_path: Path, change: Callable[[Path], None], why: str
) -> None:
    folder = place(good, tmp_path / "bundle")
    real = os.open

    def opened(path: Path, *rest: int) -> int:
        if Path(path).name == "README.txt":
            change(folder / "segment")
        return real(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        with pytest.raises(VerificationError, match=f"segment is {why}"):
            verify(folder, key.public, today=TODAY)
