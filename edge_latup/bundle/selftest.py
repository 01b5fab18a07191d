"""Does the installed bundle compute here what its maker saw? The golden case through each artifact, on the real hardware."""

from __future__ import annotations

import statistics
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bundle.fingerprint import Fingerprint, fingerprint
from edge_latup.bundle.golden import FOLDER, Expectation, Expected, computed, golden_files, golden_input, read_golden
from edge_latup.cases.layout import CaseFiles
from edge_latup.errors import EdgeLatupError, VerificationError
from edge_latup.manifest import RuntimeName
from edge_latup.records import Record
from edge_latup.runtimes import choose_runtime, open_session
from edge_latup.runtimes.audit import shortfall
from edge_latup.runtimes.base import Batch, Session, SessionOptions
from edge_latup.segmentation.kernels import audit_summary
from edge_latup.segmentation.memory import in_gib, process_bytes

TIMED_RUNS: Final = 3


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
    runtime: RuntimeName | None = None
    """None where none could be opened."""
    checks: tuple[Check, ...]
    latency_ms: float | None = Field(None, gt=0)
    """Median of one network input, of `TIMED_RUNS` runs."""
    peak_bytes: int | None = None
    """Peak RSS of the process until then, which for a later artifact includes the earlier ones."""

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


def run_self_test(bundle: Path, digest: str, *, threads: int = 0, cache: Path | None = None) -> SelfTest:
    """Send the golden case through the artifacts of an unpacked bundle, until one passes.

    Args:
        bundle: the folder.
        digest: SHA-256 of its manifest.json.
        threads: CPU threads; 0 for all.
        cache: where runtimes keep compiled models.

    Raises:
        VerificationError: the golden case is damaged.
    """
    folder = bundle / FOLDER
    golden = read_golden(folder)
    files, tests = golden_files(folder, golden.case), []
    for expectation in golden.expectations:
        expected = Expected.read(folder / expectation.file)
        tests.append(_test(bundle, expectation, expected, files, SessionOptions(threads=threads, cache_dir=cache)))
        if tests[-1].passed:
            break
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return SelfTest(finished=now, bundle=digest, fingerprint=fingerprint(), artifacts=tuple(tests))


def _test(bundle: Path, expectation: Expectation, expected: Expected, files: CaseFiles, options: SessionOptions) -> ArtifactTest:
    try:
        artifact = open_artifact(bundle / expectation.artifact)
        runtime = choose_runtime(artifact)
        with open_session(artifact, runtime, options) as session:
            return _tested(session, artifact, runtime, expectation, expected, files)
    except VerificationError:
        raise
    except EdgeLatupError as error:
        check = Check(name="opens and runs", passed=False, found=f"{error.message} ({error.hint})" if error.hint else error.message)
        return ArtifactTest(artifact=expectation.artifact, digest=expectation.digest, checks=(check,))


def _tested(
    session: Session, artifact: Artifact, runtime: RuntimeName, expectation: Expectation, expected: Expected, files: CaseFiles
) -> ArtifactTest:  # fmt: skip
    spec, limits = artifact.manifest.spec, expectation.limits
    found = computed(session, files, spec, expected.voxels)
    batch = golden_input(files, spec)
    latency, same = _timed(session, batch)
    peak = process_bytes("VmHWM")
    checks = [
        Check(name="is the artifact that was packaged", passed=artifact.digest == expectation.digest, found=f"SHA-256 {artifact.digest}"),
        _labels(found, expected, expectation), _probabilities(found, expected, expectation),
        Check(name="same input, same output", passed=same, found="bit for bit" if same else "two runs on one input differ"),
        _precision(session, artifact),
    ]  # fmt: skip
    if limits.latency_ms is not None:
        words = f"{latency:,.0f} ms, median of {TIMED_RUNS}; promised: at most {limits.latency_ms:,.0f} ms"
        checks.append(Check(name="latency of one input", passed=latency <= limits.latency_ms, found=words))
    if limits.peak_bytes is not None:
        words = f"{in_gib(peak)}; promised: at most {in_gib(limits.peak_bytes)}"
        checks.append(Check(name="peak memory", passed=peak <= limits.peak_bytes, found=words))
    return ArtifactTest(
        artifact=expectation.artifact, digest=artifact.digest, runtime=runtime, checks=tuple(checks), latency_ms=latency, peak_bytes=peak
    )


def _timed(session: Session, batch: Batch) -> tuple[float, bool]:
    """(median milliseconds, whether every run gave the same bits); the caller has warmed the session up."""
    first, samples, same = session.infer(batch), [], True
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        output = session.infer(batch)
        samples.append((time.perf_counter() - began) * 1000)
        same = same and bool(np.array_equal(output, first))
    return statistics.median(samples), same


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


def _precision(session: Session, artifact: Artifact) -> Check:
    name, summary = "executed precision", audit_summary(session)
    if summary is None:
        return Check(name=name, passed=True, found="the runtime does not tell")
    missed = shortfall(summary)
    shares = ", ".join(f"{share:.0%} {precision}" for precision, share in summary.executed.items())
    declared = f"declared {artifact.manifest.precision} over {artifact.manifest.float_precision}, executed {shares} of the MACs"
    return Check(name=name, passed=missed is None, found=missed or declared)
