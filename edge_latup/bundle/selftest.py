"""Does the installed bundle compute here what its maker saw? The golden case through each artifact, on the real hardware."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bundle.attempts import attempt
from edge_latup.bundle.fingerprint import Fingerprint, fingerprint
from edge_latup.bundle.golden import FOLDER, Expectation, Expected, computed, golden_files, golden_input, read_golden
from edge_latup.bundle.on_device import Engine, open_on_device, precision_of, same_answer
from edge_latup.cases.layout import CaseFiles
from edge_latup.errors import EdgeLatupError, VerificationError
from edge_latup.manifest import RuntimeName
from edge_latup.records import Record
from edge_latup.runtimes import choose_runtime, open_session, runtime_made_for
from edge_latup.runtimes.audit import shortfall
from edge_latup.runtimes.base import Batch, Session, SessionOptions
from edge_latup.runtimes.tensorrt import BUILD
from edge_latup.segmentation.kernels import audit_summary
from edge_latup.segmentation.memory import in_gib, process_bytes

TIMED_RUNS: Final = 3
OPENS: Final = "opens and runs"
INSTALL_THERE: Final = (
    "see that the GPU's driver works and that TensorRT is installed for the Python that this bundle was installed with (on Jetson both come"
    " with JetPack, for the system's python3)"
)
MAKER: Final = "tell whoever made the bundle"


class Check(Record):
    """One thing that was looked at."""

    name: str
    passed: bool
    found: str
    """In words, with the figure and its bound."""


class ArtifactTest(Record):
    """All checks of one artifact."""

    artifact: str
    digest: str
    wanted: RuntimeName | None = None
    """The runtime that was to be opened; None where the artifact itself is damaged."""
    runtime: RuntimeName | None = None
    """None where none could be opened."""
    checks: tuple[Check, ...]
    latency_ms: float | None = Field(None, gt=0)
    """Median of one network input, of `TIMED_RUNS` runs."""
    peak_bytes: int | None = None
    """Peak RSS of the process until then, which for a later artifact includes the earlier ones."""
    engine: Engine | None = None
    """The TensorRT engine that was tested; None on other runtimes."""
    remedy: str = ""
    """What would let a TensorRT artifact be opened here."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


class SelfTest(Record):
    """Stored where the bundle is installed."""

    schema_version: int = Field(1, ge=1, le=1)
    finished: datetime
    """UTC."""
    bundle: str
    """SHA-256 of the bundle's manifest.json."""
    fingerprint: Fingerprint
    artifacts: tuple[ArtifactTest, ...]
    """In the bundle's order: best first."""

    @property
    def chosen(self) -> str | None:
        """Folder of the first artifact that passed; None where none did."""
        return next((test.artifact for test in self.artifacts if test.passed), None)

    @property
    def engine(self) -> Engine | None:
        """Of the chosen artifact."""
        return next((test.engine for test in self.artifacts if test.passed), None)


def run_self_test(
    bundle: Path, digest: str, *, threads: int = 0, cache: Path | None = None, tell: Callable[[str], None] = lambda _: None
) -> SelfTest:  # fmt: skip
    """Send the golden case through the artifacts of an unpacked bundle, until one passes.

    Args:
        bundle: the folder.
        digest: SHA-256 of its manifest.json.
        threads: CPU threads; 0 for all.
        cache: where runtimes keep compiled models.
        tell: what takes minutes, before it is begun.

    Raises:
        VerificationError: the golden case is damaged.
    """
    folder = bundle / FOLDER
    golden = read_golden(folder)
    files, tests = golden_files(folder, golden.case), []
    for expectation in golden.expectations:
        expected = Expected.read(folder / expectation.file)
        tests.append(_test(bundle, expectation, expected, files, SessionOptions(threads=threads, cache_dir=cache), tell))
        if tests[-1].passed:
            break
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return SelfTest(finished=now, bundle=digest, fingerprint=fingerprint(), artifacts=tuple(tests))


def _test(
    bundle: Path, expectation: Expectation, expected: Expected, files: CaseFiles, options: SessionOptions, tell: Callable[[str], None]
) -> ArtifactTest:  # fmt: skip
    runtime: RuntimeName | None = None
    try:
        artifact = open_artifact(bundle / expectation.artifact)
        runtime = runtime_made_for(artifact)
        with attempt(options.cache_dir, artifact.digest) if runtime == "tensorrt" else nullcontext():
            runtime = choose_runtime(artifact)
            session, engine = _opened(artifact, runtime, options, tell)
            with session:
                return _tested(session, artifact, runtime, expectation, expected, files, engine)
    except VerificationError:
        raise
    except EdgeLatupError as error:
        return _unopened(expectation, runtime, error.message, error.hint)
    except Exception as error:
        if runtime != "tensorrt":
            raise
        # Whatever the machine's TensorRT or driver throws, the fallback is still there.
        return _unopened(expectation, runtime, f"TensorRT failed: {type(error).__name__}: {error}", MAKER)


def _unopened(expectation: Expectation, runtime: RuntimeName | None, message: str, hint: str) -> ArtifactTest:
    if runtime == "tensorrt":  # its remedy for engineers is not one for the machine that segments
        remedy, found = (INSTALL_THERE if hint == BUILD else hint or MAKER), message
    else:
        remedy, found = "", f"{message} ({hint})" if hint else message
    check = Check(name=OPENS, passed=False, found=found)
    return ArtifactTest(artifact=expectation.artifact, digest=expectation.digest, wanted=runtime, remedy=remedy, checks=(check,))


def _opened(
    artifact: Artifact, runtime: RuntimeName, options: SessionOptions, tell: Callable[[str], None]
) -> tuple[Session, Engine | None]:  # fmt: skip
    return open_on_device(artifact, options, tell) if runtime == "tensorrt" else (open_session(artifact, runtime, options), None)


def _tested(
    session: Session, artifact: Artifact, runtime: RuntimeName, expectation: Expectation, expected: Expected, files: CaseFiles,
    engine: Engine | None = None,
) -> ArtifactTest:  # fmt: skip
    spec, limits = artifact.manifest.spec, expectation.limits
    found = computed(session, files, spec, expected.voxels)
    batch = golden_input(files, spec)
    latency, spread = _timed(session, batch)
    peak = process_bytes("VmHWM")
    checks = [
        Check(name="is the artifact that was packaged", passed=artifact.digest == expectation.digest, found=f"SHA-256 {artifact.digest}"),
        _labels(found, expected, expectation), _probabilities(found, expected, expectation),
        _same(spread, same_answer(artifact) if engine else 0.0), _precision(session, artifact, engine),
    ]  # fmt: skip
    if engine is not None:
        checks.insert(1, Check(name="engine", passed=True, found=f"{engine.built}; TensorRT {engine.tensorrt}, {engine.gpu}"))
    if limits.latency_ms is not None:
        words = f"{latency:,.0f} ms, median of {TIMED_RUNS}; promised: at most {limits.latency_ms:,.0f} ms"
        checks.append(Check(name="latency of one input", passed=latency <= limits.latency_ms, found=words))
    if limits.peak_bytes is not None:
        words = f"{in_gib(peak)}; promised: at most {in_gib(limits.peak_bytes)}"
        checks.append(Check(name="peak memory", passed=peak <= limits.peak_bytes, found=words))
    return ArtifactTest(
        artifact=expectation.artifact, digest=artifact.digest, wanted=runtime, runtime=runtime, checks=tuple(checks), latency_ms=latency,
        peak_bytes=peak, engine=engine,
    )  # fmt: skip


def _timed(session: Session, batch: Batch) -> tuple[float, float]:
    """(median milliseconds, largest difference between two runs, NaN counting as infinite); the caller has warmed the session up."""
    first, samples, spread = session.infer(batch), [], 0.0
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        output = session.infer(batch)
        samples.append((time.perf_counter() - began) * 1000)
        apart = 0.0 if np.array_equal(output, first) else float(np.abs(output - first).max())
        spread = max(spread, apart if np.isfinite(apart) else float("inf"))
    return statistics.median(samples), spread


def _same(spread: float, allowed: float) -> Check:
    """Bit for bit, but for an engine, whose kernels may add up in another order."""
    told = "bit for bit" if spread == 0 else f"runs on one input differ by up to {spread:.2g} of a probability"
    return Check(name="same input, same output", passed=spread <= allowed, found=f"{told}; at most {allowed:g}" if allowed else told)


def _labels(found: Expected, expected: Expected, expectation: Expectation) -> Check:
    bound = expectation.tolerance.same_class
    if found.labels.shape != expected.labels.shape:
        return Check(name="labels", passed=False, found=f"shape {found.labels.shape}, expected {expected.labels.shape}")
    share = float(np.mean(found.labels == expected.labels))
    return Check(name="labels", passed=share >= bound, found=f"{share:.5f} of voxels as expected; at least {bound}")


def _probabilities(found: Expected, expected: Expected, expectation: Expectation) -> Check:
    bound, norm = expectation.tolerance.relative_l2, float(np.linalg.norm(expected.probabilities))
    if found.probabilities.shape != expected.probabilities.shape or not np.isfinite(found.probabilities).all():
        return Check(name="probabilities", passed=False, found="another number of classes, or NaN")
    distance = float(np.linalg.norm(found.probabilities - expected.probabilities)) / norm
    return Check(name="probabilities", passed=distance <= bound, found=f"relative L2 distance {distance:.2g}; at most {bound}")


def _precision(session: Session, artifact: Artifact, engine: Engine | None) -> Check:
    name, summary = "executed precision", audit_summary(session)
    if summary is None:
        return Check(name=name, passed=True, found="the runtime does not tell")
    if engine is not None:
        kept, words = precision_of(summary, artifact)
        return Check(name=name, passed=kept, found=words)
    missed = shortfall(summary)
    shares = ", ".join(f"{share:.0%} {precision}" for precision, share in summary.executed.items())
    declared = f"declared {artifact.manifest.precision} over {artifact.manifest.float_precision}, executed {shares} of the MACs"
    return Check(name=name, passed=missed is None, found=missed or declared)


def fallback_told(result: SelfTest) -> str | None:
    """Where an artifact for TensorRT did not pass and another is used: which, why, and what to do, in one sentence; else None."""
    best = result.artifacts[0] if result.artifacts else None
    if best is None or best.wanted != "tensorrt" or best.passed or result.chosen is None:
        return None
    used = next(test for test in result.artifacts if test.artifact == result.chosen)
    why = "; ".join(check.found if check.name == OPENS else f"{check.name}: {check.found}" for check in best.checks if not check.passed)
    return (
        f"{best.artifact} does not run in TensorRT on this machine ({why}), so {used.artifact} on {used.runtime} is used, which passed its"
        f" self-test; to change that: {best.remedy or MAKER}, then run: edge-latup self-test"
    )
