"""A real bundle of a tiny network: packaged, then installed and used as a clinic does, without a network and with an empty home."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import CREATED, installed_whole, signing_key, write_key
from tiny_models import Compress

from edge_latup.artifact import Artifact
from edge_latup.bundle import golden
from edge_latup.bundle.build import Plan, build_bundle
from edge_latup.bundle.sign import write_archive
from edge_latup.bundle.verify import verify
from edge_latup.cases.cohort import write_cohort

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SYSTEM_PYTHON = Path(sys.base_prefix, "bin", f"python{PYTHON}")
KEY = signing_key()
LARGEST_INSTALLATION = 350e6
"""Bytes, on x86-64 with OpenVINO."""
CUTS = 20
"""Kills that come before the installer's end; others are not counted."""
LONGEST = 90
"""Seconds from the installer's start to a segmented case."""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
    pytest.mark.skipif(not SYSTEM_PYTHON.is_file(), reason=f"no {SYSTEM_PYTHON}"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels are downloaded once, or never where EDGE_LATUP_WHEELS keeps them."""
    named = os.environ.get("EDGE_LATUP_WHEELS")
    return Path(named) if named else tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def plan(tiny_fp32: Artifact, compressed: Compress, store: Path) -> Plan:
    if not installed_whole():
        pytest.skip("edge-latup is not installed as a wheel, which a bundle is made of")
    return Plan(
        artifacts=(compressed("int8", "openvino").folder, tiny_fp32.folder), name="tiny", version="1", target="x86-64-avx2",
        platform="linux-aarch64" if os.uname().machine == "aarch64" else "linux-x86-64", pythons=(PYTHON,), created=CREATED, wheels=store,
        threads=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle's folder; its golden case is small enough for a tiny network."""
    patch = pytest.MonkeyPatch()
    patch.setattr(golden, "SHAPE", (64, 64, 56))
    out = tmp_path_factory.mktemp("out") / "bundle"
    build_bundle(plan, KEY, out)
    yield out
    patch.undo()


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("key"), KEY.public)


def offline(home: Path, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run with no network interface at all, an empty environment and a home of its own."""
    home.mkdir(parents=True, exist_ok=True)
    isolate = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
    environment = ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", f"PYTHON={SYSTEM_PYTHON}", *(f"{k}={v}" for k, v in more.items())]
    return subprocess.run([*isolate, *environment, *command], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if shutil.which("unshare") is None or offline(Path("/tmp"), "true").returncode:
        pytest.skip("network namespaces cannot be made here")


@pytest.fixture(scope="module")
def installed(bundle: Path, public: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installation that was made offline; its installer's words are in a file beside it."""
    home = tmp_path_factory.mktemp("home")
    done = offline(home, bundle / "install.sh", "--key", public)
    assert done.returncode == 0, done.stdout + done.stderr
    (home / "said.txt").write_text(done.stdout, encoding="utf-8")
    return home / "edge-latup"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (files,) = write_cohort(tmp_path_factory.mktemp("case"), cases=1, seed=9, shape=(64, 64, 56))
    return files.folder


def test_it_verifies_as_a_folder_and_as_an_archive(bundle: Path, tmp_path: Path) -> None:
    write_archive(bundle, tmp_path / "tiny.tar.zst")
    assert verify(bundle, KEY.public).digest == verify(tmp_path / "tiny.tar.zst", KEY.public).digest


def test_packaging_twice_gives_the_same_bytes(bundle: Path, plan: Plan, tmp_path: Path) -> None:
    build_bundle(plan, KEY, tmp_path / "again")
    for ending in (".tar.zst", ".zip"):
        digests = set()
        for number, folder in enumerate((bundle, tmp_path / "again")):
            archive = tmp_path / f"{number}{ending}"
            write_archive(folder, archive)
            digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
        assert len(digests) == 1


def test_it_brings_what_a_clinic_needs_and_nothing_of_the_engineers(bundle: Path) -> None:
    wheels = {path.name.partition("-")[0].lower() for path in (bundle / "wheels").glob("*.whl")}
    assert {"edge_latup", "openvino", "numpy", "nibabel", "cryptography", "pip"} <= wheels
    assert wheels.isdisjoint({"torch", "onnx", "nncf", "scipy", "openvino_telemetry", "plotly"})
    names = {path.name for path in bundle.iterdir()}
    assert {"README.md", "MODEL-CARD.md", "sbom.cdx.json", "licences", "install.py", "install.sh", "install.ps1"} <= names
    assert not any(folder.is_dir() and not any(folder.iterdir()) for folder in (bundle / "licences").iterdir())


def test_installed_offline_it_proves_itself_and_segments(installed: Path, case: Path, tmp_path: Path) -> None:
    said = (installed.parent / "said.txt").read_text(encoding="utf-8")
    assert "self-test on this machine" in said
    assert "FAILED" not in said
    size = sum(path.lstat().st_size for path in installed.rglob("*") if path.is_file())
    assert size <= LARGEST_INSTALLATION, f"{size / 1e6:.0f} MB"
    done = offline(tmp_path, installed / "segment", case, "--out", tmp_path / "labels.nii.gz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "labels.nii.gz").is_file()
    assert (tmp_path / "labels.json").is_file()


def test_it_wrote_nothing_outside_its_folder(installed: Path) -> None:
    assert {path.name for path in installed.parent.iterdir()} == {"edge-latup", "said.txt"}


def test_from_installer_to_label_map_in_time(bundle: Path, public: Path, case: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    root = tmp_path / "clinic"
    for command in (
        [bundle / "install.sh", "--key", public, "--root", root],
        [root / "segment", case, "--out", tmp_path / "labels.nii.gz"],
    ):
        done = offline(tmp_path / "home", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began <= LONGEST


NO_SOCKETS = """
#include <sys/socket.h>
#include <stdlib.h>
#include <unistd.h>
int socket(int domain, int type, int protocol) {
    if (domain != AF_UNIX) { write(2, "A SOCKET WAS OPENED\\n", 20); _exit(99); }
    return -1;
}
"""


def test_no_socket_is_opened(installed: Path, case: Path, tmp_path: Path) -> None:
    """A library that ends the process at any socket but AF_UNIX stands before the system's own."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "no.c").write_text(NO_SOCKETS, encoding="ascii")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "no.so", tmp_path / "no.c"], check=True, capture_output=True)
    preload = {"LD_PRELOAD": str(tmp_path / "no.so")}
    caught = offline(tmp_path, SYSTEM_PYTHON, "-c", "import socket; socket.socket()", **preload)
    assert (caught.returncode, caught.stderr) == (99, "A SOCKET WAS OPENED\n"), "the guard itself works"
    for command in (
        [installed / "edge-latup", "self-test"],
        [installed / "segment", case, "--out", tmp_path / "labels.nii.gz"],
        [installed / "edge-latup", "doctor"],
    ):
        done = offline(tmp_path, *command, **preload)
        assert (done.returncode, "SOCKET" in done.stderr) == (0, False), done.stdout + done.stderr


def test_an_operators_mistake_is_one_sentence_and_no_file(installed: Path, case: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(case, broken)
    next(broken.glob("*t1c.nii.gz")).unlink()
    for what, words in ((broken, "t1c"), (tmp_path / "nowhere", "nowhere")):
        done = offline(tmp_path, installed / "segment", what, "--out", tmp_path / "labels.nii.gz")
        assert done.returncode == 2
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert words in errors[0]
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("labels*"))


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
"""Run a command with one folder read-only, in a mount namespace of its own: permission bits do not bind root."""


@pytest.mark.parametrize("out", ["labels.nii.gz", "labels"], ids=["one exam", "a folder of exams"])
def test_a_read_only_disk_is_one_sentence_and_no_file(installed: Path, case: Path, tmp_path: Path, out: str) -> None:
    disk, home = tmp_path / "disk", tmp_path / "home"
    disk.mkdir()
    mounted = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", disk]
    if offline(home, *mounted, "true").returncode:
        pytest.skip("a read-only folder cannot be mounted here")
    exam = case.parent if out == "labels" else case
    done = offline(home, *mounted, installed / "segment", exam, "--out", disk / out)
    assert done.returncode == 2, done.stdout + done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot write into" in error
    assert "Read-only file system" in error
    assert "choose another --out" in done.stderr
    assert "Traceback" not in done.stderr
    assert "segmenting" not in done.stderr, "it is refused before the minutes of inference"
    assert list(disk.iterdir()) == []
    assert list(home.iterdir()) == []


def test_a_disk_that_is_too_small_leaves_nothing_half_installed(bundle: Path, public: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        done = offline(tmp_path / "home", bundle / "install.sh", "--key", public, "--root", disk / "edge-latup")
        assert done.returncode in (1, 2)
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert list((disk / "edge-latup" / "versions").iterdir()) == []
        assert not (disk / "edge-latup" / "current").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def second(plan: Plan, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version, with its change record."""
    from dataclasses import replace

    out = tmp_path_factory.mktemp("second") / "bundle"
    build_bundle(replace(plan, version="2", previous=bundle, reason="tried in a test"), KEY, out)
    return out


def test_the_change_record_names_the_bundle_before(bundle: Path, second: Path) -> None:
    changes = (second / "CHANGES.json").read_text(encoding="utf-8")
    assert f"tiny-1 {verify(bundle, KEY.public).digest}" in changes
    assert "tried in a test" in changes


def version_in_use(root: Path) -> str:
    return (root / "current").read_text(encoding="utf-8").strip().rpartition("-")[0]


@pytest.mark.slow
def test_power_cuts_end_in_a_working_installation(
    bundle: Path, second: Path, public: Path, case: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:  # fmt: skip
    """SIGKILL at 20 random points of an update: the version before stays usable, and the same command then ends it."""
    home, moments = tmp_path_factory.mktemp("power"), random.Random(20)
    root = home / "edge-latup"
    first = offline(home, bundle / "install.sh", "--key", public)
    assert first.returncode == 0, first.stderr
    began = time.monotonic()
    assert offline(home, second / "install.sh", "--key", public, "--root", home / "timed").returncode == 0
    whole, cuts, turn = time.monotonic() - began, 0, 0
    while cuts < CUTS:
        turn += 1
        assert turn <= 3 * CUTS, "too few kills come before the end"
        if version_in_use(root) == "tiny-2":
            assert offline(home, SYSTEM_PYTHON, second / "install.py", "--rollback").returncode == 0
            shutil.rmtree(next((root / "versions").glob("tiny-2-*")))
        command = ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", SYSTEM_PYTHON, second / "install.py", "--key", public]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as process:
            began = time.monotonic()
            try:
                process.wait(moments.uniform(0, whole))
                whole = min(whole, time.monotonic() - began)  # done before the power went: the next cut comes sooner
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                cuts += 1
        labels = home / f"{turn}.nii.gz"
        done = offline(home, root / "segment", case, "--out", labels)
        assert done.returncode == 0, f"turn {turn}: {done.stdout}{done.stderr}"
        again = offline(home, second / "install.sh", "--key", public)
        assert again.returncode == 0, f"turn {turn}: {again.stdout}{again.stderr}"
        assert version_in_use(root) == "tiny-2"
        assert {path.name.rpartition("-")[0] for path in (root / "versions").iterdir()} == {"tiny-1", "tiny-2"}


def test_an_update_that_fails_its_self_test_is_not_switched_to(
    plan: Plan, bundle: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    from dataclasses import replace

    root = tmp_path / "root"
    assert offline(tmp_path, bundle / "install.sh", "--key", public, "--root", root).returncode == 0
    limits = golden.Limits(latency_ms=1e-6)
    build_bundle(replace(plan, version="bad", limits=limits, artifacts=plan.artifacts[:1]), KEY, tmp_path / "bad")
    done = offline(tmp_path, tmp_path / "bad" / "install.sh", "--key", public, "--root", root)
    assert done.returncode == 1
    assert "did not pass its self-test, so it was not switched to" in done.stderr
    assert version_in_use(root) == "tiny-1"


def machine_with(folder: Path, tensorrt: str) -> Path:
    """A Python that has a package `tensorrt` with this content."""
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", folder], check=True)
    package = next((folder / "lib").glob("python*/site-packages")) / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(tensorrt, encoding="ascii")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_bundle_for_tensorrt_falls_back_where_there_is_none_or_no_gpu_or_it_crashes(
    plan: Plan, bundle: Path, compressed: Compress, tiny_fp32: Artifact, public: Path, case: Path, tmp_path: Path
) -> None:  # fmt: skip
    """The road to an engine up to the GPU, with the real wheels: none is here, so no engine is built."""
    from dataclasses import replace

    if os.uname().machine != "x86_64":
        pytest.skip("a target with TensorRT is named for x86-64")
    artifacts = (compressed("int8", "tensorrt").folder, tiny_fp32.folder)
    build_bundle(replace(plan, artifacts=artifacts, target="rtx-3060-12gb"), KEY, tmp_path / "bundle")
    no_gpu, crashes = machine_with(tmp_path / "no-gpu", ""), machine_with(tmp_path / "crashes", "import os; os.abort()")
    for python, why in (
        (SYSTEM_PYTHON, "needs tensorrt, which is not installed"),
        (no_gpu, "CUDA finds none"),
        (crashes, "TensorRT ended this program 2 times"),
    ):
        root = tmp_path / python.parent.parent.name
        root = root.with_name(f"root-{root.name}")
        done = offline(tmp_path / "home", tmp_path / "bundle" / "install.sh", "--key", public, "--root", root, PYTHON=str(python))
        assert done.returncode == 0, done.stdout + done.stderr
        (told,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        assert why in told
        assert done.stdout.count("it is begun again") == (2 if python == crashes else 0)
        assert "is used, which passed its self-test" in told
        assert any((root / "versions").glob("*/site/cuda/bindings"))
        labels = tmp_path / f"{root.name}.nii.gz"
        done = offline(tmp_path / "home", root / "segment", case, "--out", labels)
        assert done.returncode == 0, done.stderr
        assert "does not run in TensorRT on this machine" in done.stderr
        assert labels.is_file()
