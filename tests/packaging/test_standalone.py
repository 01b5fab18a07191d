"""The variant without Python: installed and used in a root that holds a shell and a few tools, but no Python, and no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import CREATED, installed_whole, signing_key, write_key
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.bundle import golden
from edge_latup.bundle.build import Plan, build_bundle
from edge_latup.cases.cohort import write_cohort

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="entering another root needs root on Linux"),
]
TOOLS = (
    "sh", "openssl", "sha256sum", "awk", "sed", "find", "sort", "uniq", "cmp", "head", "mktemp", "cat", "cp", "rm", "mkdir", "chmod",
    "dirname", "grep", "env",
)  # fmt: skip
LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libz.so.1")
"""The C library, and zlib, which PyInstaller's loader needs from the machine: docs/bundles.md says so."""
KEY = signing_key()
LARGEST_INSTALLATION = 350e6


def libraries_of(program: Path) -> set[Path]:
    """What the loader maps for a program, the loader too."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", told)}


def library(folder: Path, name: str) -> Path | None:
    return next((place / name for place in (folder, Path("/usr") / folder.relative_to("/")) if (place / name).is_file()), None)


def make_root(root: Path) -> None:
    """A root with the tools, what they load, and nothing else."""
    for place in ("bin", "proc", "dev", "home", "tmp"):
        (root / place).mkdir(parents=True)
    libraries: set[Path] = set()
    for tool in TOOLS:
        program = Path(shutil.which(tool) or pytest.skip(f"no {tool} here"))
        shutil.copy(program.resolve(), root / "bin" / tool)
        libraries |= libraries_of(program)
    folder = next(path.parent for path in libraries if path.name == "libc.so.6")
    for path in libraries | {one for name in LIBRARIES if (one := library(folder, name))}:
        (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to("/"))


class Clinic:
    """The root, and how a command is run in it: no interface but an unconfigured one, and no variable but three."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        steps = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
        clean = ["/bin/env", "-i", "HOME=/home", "PATH=/bin", "TMPDIR=/tmp"]
        isolate = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", steps, str(self.root)]
        return subprocess.run([*isolate, *clean, *command], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def clinic(tiny_fp32: Artifact, compressed: Compress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    if not installed_whole():
        pytest.skip("edge-latup is not installed as a wheel, which a bundle is made of")
    found = Clinic(tmp_path_factory.mktemp("clinic") / "root")
    make_root(found.root)
    if found.run("/bin/cat", "/proc/self/stat").returncode:
        pytest.skip("another root cannot be entered here")
    named = os.environ.get("EDGE_LATUP_WHEELS")
    plan = Plan(
        artifacts=(compressed("int8", "openvino").folder, tiny_fp32.folder), name="tiny", version="1", target="x86-64-avx2",
        platform="linux-aarch64" if os.uname().machine == "aarch64" else "linux-x86-64", pythons=(), created=CREATED, standalone=True,
        wheels=Path(named) if named else tmp_path_factory.mktemp("wheels"), threads=2,
    )  # fmt: skip
    patch = pytest.MonkeyPatch()
    patch.setattr(golden, "SHAPE", (64, 64, 56))
    build_bundle(plan, KEY, found.root / "bundle")
    patch.undo()
    write_key(found.root, KEY.public).rename(found.root / "public-key.json")
    tuple(write_cohort(found.root / "case", cases=1, seed=9, shape=(64, 64, 56)))
    yield found
    shutil.rmtree(found.root)


def test_the_root_has_no_python(clinic: Clinic) -> None:
    outside = [path for path in clinic.root.rglob("*python*") if clinic.root / "bundle" not in path.parents]
    assert outside == []
    assert not (clinic.root / "bundle" / "wheels").exists()


def test_from_installer_to_label_map(clinic: Clinic) -> None:
    done = clinic.run("/bundle/install.sh", "--key", "/public-key.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "artifacts/" in done.stdout
    assert "FAILED" not in done.stdout
    root = clinic.root / "home" / "edge-latup"
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())
    assert size <= LARGEST_INSTALLATION, f"{size / 1e6:.0f} MB"
    done = clinic.run("/home/edge-latup/segment", "/case", "--out", "/tmp/labels.nii.gz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (clinic.root / "tmp" / "labels.nii.gz").is_file()
    assert clinic.run("/home/edge-latup/edge-latup", "doctor", "--bundle", "/home/edge-latup").returncode == 0
    assert {path.name for path in (clinic.root / "home").iterdir()} == {"edge-latup"}


def test_an_altered_program_is_not_run(clinic: Clinic) -> None:
    library = next((clinic.root / "bundle" / "app").rglob("*.so"))
    content = library.read_bytes()
    try:
        library.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = clinic.run("/bundle/install.sh", "--key", "/public-key.json")
    finally:
        library.write_bytes(content)
    assert done.returncode == 5
    assert library.name in done.stderr
