"""A TensorRT artifact of a bundle on the machine it is for: its engine is built there, kept, proven, and built again where it must be.

Where bundles are made no engine can be built. What must come out of the golden case is therefore reference numerics (see `reference`).
Nothing here was executed on a GPU by this project: the tests use a double of TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_latup.artifact import Artifact, open_artifact, sha256_of
from edge_latup.bundle.attempts import attempt
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.manifest import AuditSummary, Sha256
from edge_latup.records import Record
from edge_latup.runtimes import open_session
from edge_latup.runtimes.audit import sentence
from edge_latup.runtimes.base import Session, SessionOptions
from edge_latup.runtimes.tensorrt import missing
from edge_latup.runtimes.tensorrt_cache import AlteredEngineError, find_engine, forget_engine
from edge_latup.runtimes.tensorrt_engine import wanted_engine
from edge_latup.runtimes.tensorrt_proof import SAME_ANSWER, prove_precision

Tell = Callable[[str], None]
MINUTES: Final = "building the TensorRT engine of {} for this GPU: this takes minutes, once for each GPU, driver and TensorRT"
KEPT: Final = "kept from an earlier self-test; its SHA-256 holds"


class Engine(Record):
    """The engine that was tested, so that another one is never segmented with untested."""

    key: Sha256
    """Of all that it depends on: artifact, GPU, driver, TensorRT, input size, options."""
    file: str
    """In the installation's cache."""
    sha256: Sha256
    tensorrt: str
    gpu: str
    built: str
    """Where it comes from, in words."""


def open_on_device(artifact: Artifact, options: SessionOptions, tell: Tell) -> tuple[Session, Engine]:
    """Open a TensorRT artifact; its engine is built where none is kept for this machine, and built again where the kept one was altered.

    Raises:
        EdgeLatupError: TensorRT is missing, or the engine cannot be built, proven or run.
    """
    folder, key = wanted_engine(artifact, options)
    built = KEPT if _is_kept(folder, key) else "built in this self-test"
    if built is not KEPT:
        tell(MINUTES.format(artifact.folder.name))
    try:
        session = open_session(artifact, "tensorrt", options)
    except AlteredEngineError as error:
        tell(f"{error.message}; {MINUTES.format(artifact.folder.name)}")
        forget_engine(folder, key)
        session, built = open_session(artifact, "tensorrt", options), "built again: the kept one was altered and was not loaded"
    record = find_engine(folder, key)
    if record is None:
        session.__exit__(None, None, None)
        raise ArtifactError(f"the engine of {artifact.folder} was removed while it was tested", "run the self-test again")
    engine = Engine(key=key, file=record.engine_file, sha256=record.engine_sha256, tensorrt=record.tensorrt, gpu=record.gpu, built=built)
    return session, engine


def _is_kept(folder: Path, key: str) -> bool:
    """Whether an engine is kept; one whose record is damaged is forgotten, and is not."""
    try:
        return find_engine(folder, key) is not None
    except SpecError:
        forget_engine(folder, key)
        return False


def engine_changed(engine: Engine, artifact: Path, cache: Path, *, ask_gpu: bool = True) -> str | None:
    """Why the engine that was tested is not the one that would be used now, in words; None where it is.

    Args:
        engine: of the stored self-test.
        artifact: its folder.
        cache: the installation's.
        ask_gpu: whether this process sees the TensorRT and the GPU that the installation uses.
    """
    path = cache / Path(engine.file).name
    if not path.is_file() or sha256_of(path) != engine.sha256:
        return "the TensorRT engine is not the one that was tested"
    if not ask_gpu:
        return None
    try:
        opened = open_artifact(artifact)
        with attempt(cache, opened.digest):
            if told := missing():
                return told
            _, key = wanted_engine(opened, SessionOptions(cache_dir=cache))
    except Exception as error:  # noqa: BLE001  (whatever TensorRT or the driver throws, the self-test comes next, and has a fallback)
        return f"TensorRT failed: {error}"
    return None if key == engine.key else "the GPU, its driver, TensorRT or the artifact is another than the engine was built for"


def same_answer(artifact: Artifact) -> float:
    """Largest difference of a probability between two answers to one input, as an engine is held to when it is built."""
    return max(SAME_ANSWER[artifact.manifest.precision], SAME_ANSWER[artifact.manifest.float_precision])


def precision_of(summary: AuditSummary, artifact: Artifact) -> tuple[bool, str]:
    """(whether the engine is what its file declares, in words), by the rule an engine is kept by: wider layers are told, FP32 refused."""
    try:
        notes = prove_precision(summary, artifact.manifest.precision, tf32=False)
    except ArtifactError as error:
        return False, error.message
    return True, "; ".join(notes) or sentence(summary)
