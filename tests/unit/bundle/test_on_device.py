"""A bundle whose best artifact is for TensorRT: packaged without it, proven where it is, and used without it where it is not.

TensorRT is a double that computes with ONNX Runtime (fake_tensorrt): nothing here ran on a GPU.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from bundles import CREATED, signing_key
from command import Command
from fake_tensorrt import Behaviour
from tiny_models import SIDE, Compress, pointwise_artifact

from edge_latup.artifact import Artifact
from edge_latup.bundle import attempts, build, golden, on_device
from edge_latup.bundle.build import Plan, build_bundle
from edge_latup.bundle.fingerprint import fingerprint
from edge_latup.bundle.fit import warnings_for
from edge_latup.bundle.golden import Expected, read_golden, tolerance_of
from edge_latup.bundle.installed import Installation
from edge_latup.bundle.selftest import fallback_told
from edge_latup.bundle.verify import verify
from edge_latup.cli import installed as command
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.records import write_record
from edge_latup.runtimes import tensorrt_engine, tensorrt_worker
from edge_latup.runtimes.onnx_audit import declared_layers

KEY, THREADS = signing_key(), 2
BEST = "artifacts/int8-tensorrt"
CHOSEN = ("is the artifact that was packaged", "engine", "labels", "probabilities", "same input, same output", "executed precision")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A golden case of the tiny network's size, and no wheelhouse."""
    patch = pytest.MonkeyPatch()
    patch.setattr(golden, "SHAPE", (64, 64, 56))
    patch.setattr(build, "_wheelhouse", lambda *given: {})
    yield
    patch.undo()


@pytest.fixture(scope="module")
def plan(tiny_fp32: Artifact, compressed: Compress) -> Plan:
    return Plan(
        artifacts=(compressed("int8", "tensorrt").folder, tiny_fp32.folder), name="tiny", version="1", target="jetson-orin-nano-8gb",
        platform="linux-aarch64", pythons=("3.10",), created=CREATED, threads=THREADS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    build_bundle(plan, KEY, out)
    return out


@pytest.fixture
def here(bundle: Path, tmp_path: Path) -> Installation:
    """The bundle as installed."""
    found = Installation(root=tmp_path, version="v1")
    shutil.copytree(bundle, found.bundle)
    return found


Install = Callable[..., Behaviour]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, compressed: Compress) -> Install:
    """Put the double in place, running INT8 where the file declares it, with the build in this process instead of one of its own."""

    def in_this_process(module: str, arguments: list[str], who: str) -> None:
        request = tensorrt_worker.read_record(tensorrt_worker.BuildRequest, Path(arguments[0]))
        tensorrt_worker.write_record(tensorrt_worker.build(request), Path(arguments[1]))

    monkeypatch.setattr(tensorrt_engine, "run_fresh", in_this_process)
    layers = declared_layers(compressed("int8", "tensorrt").model_path, (1, 3, SIDE, SIDE, SIDE))
    kernels = {layer.name: "Int8" for layer in layers if layer.precision == "int8"}
    assert kernels
    return lambda **does: fake_tensorrt.install(monkeypatch, Behaviour(**{"kernels": kernels, **does}))


def engines(here: Installation) -> list[Path]:
    return sorted(here.cache.glob("*.engine"))


# Packaging, where there is no TensorRT.


def test_it_is_packaged_without_tensorrt_and_says_what_its_expectation_is(bundle: Path, compressed: Compress) -> None:
    verify(bundle, KEY.public, today=CREATED)
    best, fallback = read_golden(bundle / "golden").expectations
    assert (best.artifact, best.runtime, best.numerics) == (BEST, "onnxruntime", "reference")
    assert (fallback.artifact, fallback.runtime, fallback.numerics) == ("artifacts/fp32", "onnxruntime", "executed")
    assert best.tolerance == tolerance_of(compressed("int8", "tensorrt"))
    card, words = (bundle / "MODEL-CARD.md").read_text(encoding="utf-8"), (bundle / "README.md").read_text(encoding="utf-8")
    assert "was never seen by whoever made the bundle" in card
    assert "reference numerics, computed by ONNX Runtime on a CPU" in card
    assert "int8-tensorrt is for TensorRT, whose engine is built, tested and kept on the machine" in words
    assert "fp32 is used" in words
    assert "never executed in TensorRT." in words


def test_the_expectation_is_the_files_graph_node_by_node(bundle: Path, compressed: Compress) -> None:
    """ONNX Runtime without its optimiser, asked here by itself, on the same input."""
    import onnxruntime as ort

    artifact = compressed("int8", "tensorrt")
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(artifact.model_path), settings, providers=["CPUExecutionProvider"])
    batch = golden.golden_input(golden.golden_files(bundle / "golden"), artifact.manifest.spec)
    output = session.run(None, {session.get_inputs()[0].name: batch})[0]
    expected = Expected.read(bundle / "golden" / "int8-tensorrt.npz")
    np.testing.assert_array_equal(golden.sampled(output, expected.voxels), expected.probabilities)


@pytest.mark.parametrize("order", [(0,), (1, 0), (0, 0)], ids=["alone", "last", "two for TensorRT"])
def test_without_a_fallback_behind_it_it_is_refused(plan: Plan, compressed: Compress, tmp_path: Path, order: tuple[int, ...]) -> None:
    given = [plan.artifacts[index] for index in order]
    if order == (0, 0):
        given[1] = compressed("typed-fp32", "tensorrt").folder
    with pytest.raises(InputError, match="no artifact for another runtime follows it") as caught:
        build_bundle(replace(plan, artifacts=tuple(given)), KEY, tmp_path / "out")
    assert "add a fallback behind it" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"standalone": True}, "cannot use the machine's TensorRT"),
        ({"platform": "windows-x86-64"}, "TensorRT is used on Linux only"),
        ({"target": "x86-64-avx2"}, "x86-64-avx2 has no TensorRT"),
        ({"target": "jetson-nano-4gb"}, "gives no engine on jetson-nano"),
    ],
    ids=["without Python", "Windows", "no GPU", "no INT8 there"],
)
def test_where_no_engine_could_be_built_it_is_refused(plan: Plan, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeLatupError, match=message) as caught:
        build_bundle(replace(plan, **change), KEY, tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_openvinos_int8_for_arm_is_warned_of_with_the_remedy(plan: Plan, tmp_path: Path) -> None:
    warned: list[str] = []
    best = pointwise_artifact(tmp_path / "int8", runtimes=("openvino",), precision="int8", storage="int8")
    changed = replace(plan, artifacts=(best.folder, pointwise_artifact(tmp_path / "fp32").folder))
    build_bundle(changed, KEY, tmp_path / "arm", warn=warned.append)
    told, unjudged = warned
    assert unjudged == "int8: no decision of the gate was given; MODEL-CARD.md says so"
    assert "int8 is INT8 for OpenVINO, which has no INT8 kernel for 3-D convolutions on aarch64" in told
    assert "another artifact of the bundle is used" in told
    assert "edge-latup quantize ARTIFACT --method int8 --runtime onnxruntime" in told
    assert told in (tmp_path / "arm" / "README.md").read_text(encoding="utf-8")
    assert read_golden(tmp_path / "arm" / "golden").expectations[1].runtime == "onnxruntime", "what may go there goes there"
    assert "nothing is segmented" in warnings_for([best], "linux-aarch64")[0]
    assert warnings_for([best], "linux-x86-64") == ()


def test_the_command_warns_too(plan: Plan, cli: Command, tmp_path: Path) -> None:
    assert cli("package", "keygen", "--out", tmp_path / "keys", "--owner", "Imaging <a@b.example>", "--no-passphrase").code == 0
    best = pointwise_artifact(tmp_path / "fp32", runtimes=("openvino",))
    done = cli("package", "build", best.folder, "--target", plan.target, "--key", tmp_path / "keys", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "warning: fp32 runs on aarch64 in OpenVINO alone" in done.err


# On the machine.


def test_the_engine_is_built_once_tested_and_kept(here: Installation, install: Install) -> None:
    does, told = install(), list[str]()
    result = here.test(THREADS, told.append)
    assert result.chosen == BEST, result
    (test,) = result.artifacts
    assert tuple(check.name for check in test.checks) == CHOSEN
    assert test.runtime == "tensorrt"
    assert "built in this self-test; TensorRT 10.16.1.11, NVIDIA GeForce RTX 3060" in test.checks[1].found
    assert "executed INT8" in test.checks[-1].found
    assert len(told) == 1
    assert "takes minutes" in told[0]
    (kept,) = engines(here)
    assert here.cache.stat().st_mode & 0o077 == 0
    assert fallback_told(result) is None
    assert here.outdated() is None
    again = here.test(THREADS, told.append)
    assert "kept from an earlier self-test; its SHA-256 holds" in again.artifacts[0].checks[1].found
    assert len(does.told("build")) == len(told) == 1
    assert engines(here) == [kept]


def test_the_launcher_segments_with_the_engine_that_was_tested(here: Installation, install: Install) -> None:
    does = install()
    out = here.root / "labels.nii.gz"
    arguments = ["--root", str(here.root), "--version", "v1", "segment", str(here.bundle / "golden" / "case"), "--out", str(out)]
    assert command.main(arguments) == 0
    assert command.main(arguments) == 0
    assert len(does.told("build")) == 1, "segmentation found the engine that the self-test built"
    assert json.loads((here.root / "labels.json").read_text(encoding="utf-8"))["settings"]["runtime"] == "tensorrt"


def test_an_altered_engine_is_never_loaded_and_built_again(here: Installation, install: Install) -> None:
    does = install()
    here.test(THREADS)
    (kept,) = engines(here)
    loaded, content = len(does.told("deserialize")), kept.read_bytes()
    kept.write_bytes(content[:-1] + b"\0")
    assert here.outdated() == "the TensorRT engine is not the one that was tested"
    assert len(does.told("deserialize")) == loaded
    result = here.test(THREADS)
    assert "built again: the kept one was altered and was not loaded" in result.artifacts[0].checks[1].found
    assert result.chosen == BEST
    assert len(does.told("build")) == 2
    assert engines(here)[0].read_bytes() == content
    assert here.outdated() is None


def test_a_damaged_record_of_an_engine_is_no_engine(here: Installation, install: Install) -> None:
    does = install()
    here.test(THREADS)
    next(path for path in here.cache.glob("*.json")).write_text("{", encoding="ascii")
    assert here.test(THREADS).chosen == BEST
    assert len(does.told("build")) == 2


@pytest.mark.parametrize(
    "change",
    [{"version": "10.15.0"}, {"integrated_name": "NVIDIA GeForce RTX 4060"}, {"driver": 13000}],
    ids=["TensorRT", "GPU", "driver"],
)
def test_another_tensorrt_gpu_or_driver_gets_another_engine(here: Installation, install: Install, change: dict[str, Any]) -> None:
    install()
    assert here.test(THREADS).chosen == BEST
    does = install(**change)
    assert "is another than the engine was built for" in str(here.outdated())
    result = here.test(THREADS)
    assert "built in this self-test" in result.artifacts[0].checks[1].found
    assert len(does.told("build")) == 1
    assert len(engines(here)) == 2


def test_without_tensorrt_the_fallback_is_used_and_it_says_why(
    here: Installation, install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    assert command.main(["--root", str(here.root), "--version", "v1", "self-test"]) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert f"{BEST} does not run in TensorRT on this machine (TensorRT needs tensorrt, which is not installed)" in told
    assert "so artifacts/fp32 on openvino is used" in told or "so artifacts/fp32 on onnxruntime is used" in told
    assert "on Jetson both come with JetPack" in told
    assert "then run: edge-latup self-test" in told
    result = here.stored()
    assert result.chosen == "artifacts/fp32"
    assert here.outdated() is None
    case, out = here.bundle / "golden" / "case", here.root / "labels.nii.gz"
    assert command.main(["--root", str(here.root), "--version", "v1", "segment", str(case), "--out", str(out)]) == 0
    assert told in capsys.readouterr().err
    install()
    assert here.test(THREADS).chosen == BEST, "once TensorRT is there, it is used"


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ({"builds": False, "errors": ("Error Code 10: something",)}, "something"),
        ({"parses": False}, "refuses"),
        ({"usual": "FP32", "kernels": {}}, "in FP32"),
        ({"drifting": 1e-2}, "different answers to the same input"),
        ({"free": 100 << 20}, "too little for"),
        ({"version": "8.5.2"}, "gives no engine|8.5.2"),
        ({"fails": "cudaStreamCreate"}, "CUDA refuses"),
    ],
    ids=["no build", "not parsed", "silently FP32", "several answers", "no memory", "too old", "broken driver"],
)
def test_where_no_engine_is_to_be_had_the_fallback_is_used(
    here: Installation, install: Install, does: dict[str, Any], words: str
) -> None:  # fmt: skip
    install(**does)
    result = here.test(THREADS)
    assert result.chosen == "artifacts/fp32"
    told = str(fallback_told(result))
    assert re.search(words, told), told
    assert "\n" not in told
    assert engines(here) == [], "an engine that did not prove itself is not kept"


def test_whatever_tensorrt_throws_the_fallback_is_used(here: Installation, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise AttributeError("this TensorRT has no such name")

    install()
    monkeypatch.setattr(on_device, "open_session", broken)
    result = here.test(THREADS)
    assert result.chosen == "artifacts/fp32"
    assert "TensorRT failed: AttributeError: this TensorRT has no such name" in str(fallback_told(result))


def test_a_driver_that_breaks_after_the_self_test_leads_to_another_one(
    here: Installation, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def broken(*given: object) -> None:
        raise AttributeError("no such name")

    install()
    here.test(THREADS)
    monkeypatch.setattr(on_device, "wanted_engine", broken)
    assert here.outdated() == "TensorRT failed: no such name"
    assert here.test(THREADS).chosen == "artifacts/fp32"


def test_an_engine_that_computes_something_else_than_the_graph_is_not_used(here: Installation, install: Install) -> None:
    install()
    path = here.bundle / "golden" / "int8-tensorrt.npz"
    expected = Expected.read(path)
    Expected(3 - expected.labels, expected.voxels, expected.probabilities[:, ::-1]).write(path)
    result = here.test(THREADS)
    assert result.chosen == "artifacts/fp32"
    told = str(fallback_told(result))
    assert "(labels: " in told
    assert "tell whoever made the bundle" in told


# A crash takes the process with it: each is counted before it can happen.

DIES = """import json, os, pathlib, signal, sys
sys.path[:] = json.loads(sys.argv[1])
from edge_latup.bundle import on_device, selftest
from edge_latup.bundle.installed import Installation
def crash(*given):
    os.kill(os.getpid(), signal.SIGSEGV)
selftest.choose_runtime = lambda artifact: "tensorrt" if "tensorrt" in artifact.folder.name else "onnxruntime"
on_device.wanted_engine = crash
result = Installation(root=pathlib.Path(sys.argv[2]), version="v1").test(2)
print(selftest.fallback_told(result))
"""


def died(here: Installation) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DIES, json.dumps(sys.path), str(here.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_tensorrt_that_crashes_twice_is_not_tried_again(here: Installation) -> None:
    for _ in range(attempts.MOST):
        ended = died(here)
        assert ended.returncode == -signal.SIGSEGV, ended.stderr
        assert (here.cache / attempts.NAME).is_file()
    told = died(here)
    assert told.returncode == 0, told.stderr
    assert "TensorRT ended this program 2 times" in told.stdout
    assert f"delete {here.cache / attempts.NAME}" in told.stdout
    assert (here.stored().chosen, here.outdated()) == ("artifacts/fp32", None)
    (here.cache / attempts.NAME).unlink()
    assert died(here).returncode == -signal.SIGSEGV, "it is tried once more where that is asked for"


def test_what_comes_back_is_not_counted(here: Installation, install: Install) -> None:
    install()
    for _ in range(attempts.MOST + 1):
        assert here.test(THREADS).chosen == BEST
        assert here.outdated() is None
    assert not (here.cache / attempts.NAME).exists()


def test_an_error_is_not_counted(here: Installation) -> None:
    here.cache.mkdir(parents=True)
    for _ in range(attempts.MOST + 1):
        with pytest.raises(RuntimeError), attempts.attempt(here.cache, "0" * 64):
            raise RuntimeError
    with attempts.attempt(here.cache, "0" * 64):
        assert (here.cache / attempts.NAME).is_file()


@pytest.mark.parametrize("change", [{"artifact": "1" * 64}, {"fingerprint": {"gpu_driver": "another"}}])
def test_what_ended_another_artifact_or_driver_is_tried_here(here: Installation, change: dict[str, Any]) -> None:
    here.cache.mkdir(parents=True)
    now = fingerprint()
    if "fingerprint" in change:
        now = now.model_copy(update=change["fingerprint"])
    write_record(attempts.Attempts(artifact=change.get("artifact", "0" * 64), fingerprint=now, begun=9), here.cache / attempts.NAME)
    with attempts.attempt(here.cache, "0" * 64):
        pass
    assert not (here.cache / attempts.NAME).exists()


def test_a_count_that_was_cut_off_begins_again(here: Installation) -> None:
    here.cache.mkdir(parents=True)
    (here.cache / attempts.NAME).write_text('{"begun": 9')
    with attempts.attempt(here.cache, "0" * 64):
        pass


# As it is really started: `python -I -S`, which sees no package of the machine but TensorRT.

TEST = """import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from edge_latup.bundle import golden
from edge_latup.cli.installed import main
code = main(sys.argv[1:])
import importlib.util
assert importlib.util.find_spec("secret") is None, "only TensorRT's modules are seen"
from edge_latup.versions import version_of
assert version_of("secret") == "not installed"
import os
print("tensorrt", version_of("tensorrt"), os.environ["CUDA_CACHE_PATH"])
sys.exit(code)
"""


@pytest.fixture
def machine(tmp_path: Path, install: Install) -> Path:
    """The Python of a machine that has a TensorRT, which is the double, and a package that is none of a bundle's business."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "machine"], check=True)
    packages = next((tmp_path / "machine" / "lib").glob("python*/site-packages"))
    places = [str(Path(fake_tensorrt.__file__).parent), *filter(None, sys.path)]
    kernels = install().kernels
    (packages / "tensorrt").mkdir()
    (packages / "tensorrt" / "__init__.py").write_text("from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n")
    (packages / "tensorrt_bindings").mkdir()
    made = (
        f"import sys; sys.path += {places!r}\nimport fake_tensorrt as fake\ndoes = fake.Behaviour(kernels={kernels!r})\n"
        "globals().update({k: v for k, v in vars(fake.tensorrt(does)).items() if not k.startswith('__') or k == '__version__'})\n"
    )
    (packages / "tensorrt_bindings" / "__init__.py").write_text(made, encoding="utf-8")
    (packages / "tensorrt-10.16.1.11.dist-info").mkdir()
    (packages / "tensorrt-10.16.1.11.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.16.1.11\n")
    (packages / "secret").mkdir()
    (packages / "secret" / "__init__.py").write_text("")
    (packages / "secret-1.0.dist-info").mkdir()
    (packages / "secret-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: secret\nVersion: 1.0\n")
    cuda = tmp_path / "of-the-bundle" / "cuda" / "bindings"
    cuda.mkdir(parents=True)
    runtime = "import tensorrt, fake_tensorrt as fake\nglobals().update(vars(fake.cuda_runtime(tensorrt.DOES)))\n"
    (cuda / "runtime.py").write_text(runtime, encoding="utf-8")
    return tmp_path / "machine" / "bin" / "python"


def started(machine: Path, here: Installation) -> subprocess.CompletedProcess[str]:
    """The installed runner's self-test in the machine's own Python."""
    places = [str(machine.parents[2] / "of-the-bundle"), *filter(None, sys.path)]
    command = [machine, "-I", "-S", "-c", TEST, json.dumps(places), "--root", here.root, "--version", "v1", "self-test"]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300, cwd=here.root)


def test_the_machines_own_tensorrt_is_found_and_nothing_else_of_it(machine: Path, here: Installation) -> None:
    done = started(machine, here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{BEST} on tensorrt" in done.stdout, done.stdout + done.stderr
    assert "takes minutes" in done.stderr
    assert f"tensorrt 10.16.1.11 {here.cache}/" in done.stdout, "nor does the driver write elsewhere"
    assert here.stored().fingerprint.packages["tensorrt"] == "10.16.1.11"
    (kept,) = engines(here)
    changed = kept.stat().st_mtime_ns
    again = started(machine, here)
    assert "kept from an earlier self-test" in again.stdout
    assert [path.stat().st_mtime_ns for path in engines(here)] == [changed]
