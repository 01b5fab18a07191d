"""The self-test finds what differs from the maker's machine, falls back where it may, and refuses where it must."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from command import Command
from tiny_models import Compress

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bundle import golden, selftest
from edge_latup.bundle.fingerprint import fingerprint
from edge_latup.bundle.golden import TOLERANCES, Expectation, Expected, Limits, Tolerance, tolerance_of, write_golden, write_golden_case
from edge_latup.bundle.installed import Installation, alone
from edge_latup.bundle.manifest import MANIFEST_NAME
from edge_latup.bundle.selftest import SelfTest
from edge_latup.cli import installed as command
from edge_latup.errors import InputError, VerificationError
from edge_latup.records import read_record, write_record
from edge_latup.runtimes import choose_runtime, open_session

THREADS = 2


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A golden case of the tiny network's size."""
    patch = pytest.MonkeyPatch()
    patch.setattr(golden, "SHAPE", (64, 64, 56))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def bundle(tiny_fp32: Artifact, compressed: Compress, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of a bundle the self-test reads: two artifacts, the golden case, and a manifest that only has a hash."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(compressed("int8", "openvino").folder, folder / "artifacts" / "int8")
    shutil.copytree(tiny_fp32.folder, folder / "artifacts" / "fp32")
    (folder / "golden").mkdir()
    files, expectations = write_golden_case(folder / "golden"), []
    for name in ("int8", "fp32"):
        artifact = open_artifact(folder / "artifacts" / name)
        with open_session(artifact) as session:
            golden.computed(session, files, artifact.manifest.spec).write(folder / "golden" / f"{name}.npz")
        expectations.append(
            Expectation(
                artifact=f"artifacts/{name}", digest=artifact.digest, runtime=choose_runtime(artifact), tolerance=tolerance_of(artifact),
                file=f"{name}.npz",
            )
        )  # fmt: skip
    write_golden(folder / "golden", expectations)
    (folder / MANIFEST_NAME).write_text("{}", encoding="ascii")
    return folder


@pytest.fixture
def here(bundle: Path, tmp_path: Path) -> Installation:
    """The bundle as installed."""
    found = Installation(root=tmp_path, version="v1")
    shutil.copytree(bundle, found.bundle)
    return found


def damage(here: Installation, name: str) -> None:
    """Expect other labels and probabilities of an artifact than it gives."""
    path = here.bundle / "golden" / f"{name}.npz"
    expected = Expected.read(path)
    Expected(3 - expected.labels, expected.voxels, expected.probabilities[:, ::-1]).write(path)


def test_the_same_machine_passes_and_only_the_best_artifact_is_run(here: Installation) -> None:
    result = here.test(THREADS)
    assert result.chosen == "artifacts/int8"
    assert [test.artifact for test in result.artifacts] == ["artifacts/int8"]
    assert all(check.passed for check in result.artifacts[0].checks)
    names = {check.name for check in result.artifacts[0].checks}
    assert names == {"is the artifact that was packaged", "labels", "probabilities", "same input, same output", "executed precision"}
    assert here.stored() == result
    assert result.bundle == hashlib.sha256(b"{}").hexdigest()


def test_the_fallback_is_taken_where_the_best_computes_something_else(here: Installation) -> None:
    damage(here, "int8")
    result = here.test(THREADS)
    assert result.chosen == "artifacts/fp32"
    failed = {check.name for check in result.artifacts[0].checks if not check.passed}
    assert failed == {"labels", "probabilities"}
    assert here.artifact(result) == here.bundle / "artifacts/fp32"


def test_where_nothing_passes_nothing_is_segmented(here: Installation) -> None:
    damage(here, "int8")
    damage(here, "fp32")
    result = here.test(THREADS)
    assert result.chosen is None
    with pytest.raises(VerificationError, match="the self-test on this machine failed, so nothing is segmented: artifacts/int8: labels: "):
        here.artifact(result)
    assert here.artifact(result, despite_failure=True) == here.bundle / "artifacts/int8"


def test_a_damaged_artifact_fails_with_its_file_named(here: Installation) -> None:
    with (here.bundle / "artifacts" / "int8" / "model.bin").open("r+b") as file:
        file.write(b"\0\1\2\3")
    result = here.test(THREADS)
    (check,) = result.artifacts[0].checks
    assert (check.name, check.passed) == ("opens and runs", False)
    assert "model.bin is not the file its manifest recorded" in check.found
    assert result.chosen == "artifacts/fp32"


def test_a_runtime_that_answers_the_same_question_twice_differently_fails(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_latup.runtimes.openvino import OpenVinoSession

    plain, calls = OpenVinoSession.infer, iter(range(10**6))
    monkeypatch.setattr(OpenVinoSession, "infer", lambda self, batch: plain(self, batch) + np.float32(1e-6 * (next(calls) % 2)))
    result = here.test(THREADS)
    assert result.chosen is None
    assert [check.name for check in result.artifacts[0].checks if not check.passed] == ["same input, same output"]


def test_promises_are_held(here: Installation) -> None:
    record = golden.read_golden(here.bundle / "golden")
    limits = Limits(latency_ms=1e-3, peak_bytes=1000)
    best = record.expectations[0].model_copy(update={"limits": limits})
    write_golden(here.bundle / "golden", [best, record.expectations[1]])
    result = here.test(THREADS)
    assert {check.name for check in result.artifacts[0].checks if not check.passed} == {"latency of one input", "peak memory"}
    assert "promised: at most" in result.artifacts[0].checks[-1].found


def test_a_self_test_holds_for_a_day_on_the_same_machine(here: Installation) -> None:
    assert here.outdated() == "no self-test is stored"
    now = datetime.now(timezone.utc).replace(microsecond=0)
    stored = SelfTest(finished=now, bundle=here.digest, fingerprint=fingerprint(), artifacts=())
    here.state.mkdir(parents=True)
    write_record(stored, here.record)
    assert here.outdated() is None
    assert "more than 24 h ago" in str(here.outdated(now=now + timedelta(hours=25)))
    assert "more than 24 h ago" in str(here.outdated(now=now - timedelta(hours=1))), "a clock that was set back proves nothing"
    write_record(stored.model_copy(update={"bundle": "0" * 64}), here.record)
    assert here.outdated() == "the stored self-test is of another bundle"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cpu": "Another CPU"}, "cpu: Another CPU is now "),
        ({"gpu_driver": "535.54"}, "gpu_driver: 535.54 is now "),
        ({"gpus": ("NVIDIA A2",)}, "gpus: ('NVIDIA A2',) is now "),
        ({"packages": {"openvino": "2025.0"}}, "openvino: 2025.0 is now "),
    ],
)
def test_another_cpu_driver_or_runtime_needs_another_self_test(here: Installation, change: dict[str, object], told: str) -> None:
    older = fingerprint().model_copy(update=change)
    here.state.mkdir(parents=True)
    write_record(SelfTest(finished=datetime.now(timezone.utc), bundle=here.digest, fingerprint=older, artifacts=()), here.record)
    assert told in str(here.outdated())


def test_the_drivers_version_is_read_from_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Tue Aug  5\nGCC version: 12.2.0\n", encoding="ascii")
    assert fingerprint(path).gpu_driver == "580.65.06"
    assert fingerprint(tmp_path / "missing").gpu_driver == "none"


def test_the_gpus_are_those_that_the_driver_names(tmp_path: Path) -> None:
    for number, model in enumerate(("NVIDIA GeForce RTX 3060", "NVIDIA A2")):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
        text = f"Model: \t\t {model}\nIRQ:   \t\t 16{number}\nGPU UUID: \t GPU-1\n"
        (tmp_path / f"0000:0{number}:00.0" / "information").write_text(text, encoding="ascii")
    assert fingerprint(gpus=tmp_path).gpus == ("NVIDIA GeForce RTX 3060", "NVIDIA A2")
    assert fingerprint(gpus=tmp_path / "missing").gpus == ()


def test_int8_has_its_own_tolerance_whatever_its_float_part(compressed: Compress, tiny_fp32: Artifact) -> None:
    assert tolerance_of(compressed("int8", "openvino")) == TOLERANCES["int8"]
    assert tolerance_of(tiny_fp32) == TOLERANCES["fp32"] == Tolerance(relative_l2=2e-3, same_class=0.999)


def test_a_file_in_the_place_of_an_expectation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "expected.npz"
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(VerificationError, match="is not an expectation"):
        Expected.read(path)


HOLD = """import pathlib, sys
from edge_latup.bundle.installed import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_launches_at_once_are_one_too_many(tmp_path: Path) -> None:
    start = "import sys; sys.path[:] = filter(None, sys.path); "
    command = [sys.executable, "-c", start + "exec(sys.argv.pop(1))", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another segmentation is running from this installation"), alone(tmp_path):
            pass
        other.kill()
    with alone(tmp_path):
        pass


def verb(here: Installation, *arguments: str | Path) -> int:
    return command.main(["--root", str(here.root), "--version", here.version, *map(str, arguments)])


def test_the_launcher_tests_first_and_then_segments(here: Installation, cli: Command, capsys: pytest.CaptureFixture[str]) -> None:
    case, out = here.bundle / "golden" / "case", here.root / "labels.nii.gz"
    assert verb(here, "segment", case, "--out", out) == 0
    assert "self-test first: no self-test is stored" in capsys.readouterr().err
    assert out.is_file()
    assert read_record(SelfTest, here.record).chosen == "artifacts/int8"
    assert verb(here, "segment", case, "--out", out) == 0
    assert "self-test" not in capsys.readouterr().err, "it holds for a day"


def test_the_launcher_refuses_after_a_failed_self_test_unless_overridden(
    here: Installation, cli: Command, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    damage(here, "int8")
    damage(here, "fp32")
    case, out = here.bundle / "golden" / "case", here.root / "labels.nii.gz"
    assert verb(here, "segment", case, "--out", out) == 5
    assert not out.exists()
    assert "so nothing is segmented" in capsys.readouterr().err
    assert verb(here, "segment", case, "--out", out, "--despite-failed-self-test") == 0
    assert "do not use the result for a patient" in capsys.readouterr().err
    assert out.is_file()


def test_self_test_and_status_show_every_check(here: Installation, cli: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(here, "self-test") == 0
    shown = capsys.readouterr().out
    assert shown.count("passed") >= 6
    assert verb(here, "status") == 0
    assert "self-test holds" in capsys.readouterr().out


def test_an_operators_mistake_is_one_sentence(here: Installation, cli: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(here, "segment", here.root / "nowhere", "--out", here.root / "x.nii.gz") == 2
    error, hint = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "hint:"))]
    assert "nowhere" in error
    assert hint
    assert not (here.root / "x.nii.gz").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [("/proc/labels.nii.gz", "cannot write into /proc"), ("/proc/labels", "/proc/labels"), ("a-file/labels.nii.gz", "does not exist")],
    ids=["no file can be made", "no folder can be made", "below a file"],
)
def test_where_nothing_can_be_written_it_is_one_sentence_before_any_inference(
    here: Installation, cli: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str, words: str
) -> None:  # fmt: skip
    from edge_latup.segmentation.case import Segmenter

    here.test(THREADS)
    monkeypatch.setattr(Segmenter, "segment_files", lambda *given: pytest.fail("inference began"))
    (here.root / "a-file").write_text("", encoding="ascii")
    before = set(here.root.iterdir())
    capsys.readouterr()
    case = here.bundle / "golden" / ("case" if out.endswith(".gz") else "")
    assert verb(here, "segment", case, "--out", here.root / out) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in error
    assert set(here.root.iterdir()) - {here.state} == before - {here.state}


def test_timed_runs_are_few() -> None:
    assert selftest.TIMED_RUNS >= 2, "one run cannot differ from itself"


def in_use(here: Installation) -> None:
    (here.root / "current").write_text("v1\n", encoding="ascii")
    (here.root / "previous").write_text("v0\n", encoding="ascii")


def test_doctor_shows_what_is_installed_and_whether_it_proved_itself(here: Installation, cli: Command) -> None:
    in_use(here)
    untested = cli("--json", "doctor", "--bundle", here.root)
    assert (untested.code, untested.data["ready"], untested.data["outdated"]) == (0, False, "no self-test is stored")
    result = here.test(THREADS)
    done = cli("--json", "doctor", "--bundle", here.root)
    assert (done.code, done.data["version"], done.data["previous"], done.data["ready"]) == (0, "v1", "v0", True)
    assert SelfTest.model_validate(done.data["self_test"]) == result
    write_record(result.model_copy(update={"fingerprint": result.fingerprint.model_copy(update={"cpu": "another"})}), here.record)
    assert "cpu: another is now" in cli("doctor", "--bundle", here.root).out


def test_doctor_of_another_installation_does_not_compare_its_own_packages(here: Installation, cli: Command) -> None:
    in_use(here)
    result = here.test(THREADS)
    other = result.fingerprint.model_copy(update={"packages": {"numpy": "1"}})
    write_record(result.model_copy(update={"fingerprint": other}), here.record)
    assert "numpy" in str(here.outdated())
    assert cli("--json", "doctor", "--bundle", here.root).data["ready"]


def test_doctor_ends_with_5_after_a_failed_self_test_and_with_2_where_nothing_is(here: Installation, cli: Command, tmp_path: Path) -> None:
    in_use(here)
    damage(here, "int8")
    damage(here, "fp32")
    here.test(THREADS)
    failed = cli("doctor", "--bundle", here.root)
    assert failed.code == 5
    assert "FAILED" in failed.out
    assert cli("doctor", "--bundle", tmp_path / "nowhere").code == 2
    (here.root / "current").write_text("../v1\n", encoding="ascii")
    assert cli("doctor", "--bundle", here.root).code == 2, "a name is no path"
