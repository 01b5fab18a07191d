"""Files in, label map and sidecar out: reading, loading, inferring and writing one case, overlapped where that pays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact, sha256_of
from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import read_case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import InputError
from edge_latup.manifest import FileRecord, RuntimeName
from edge_latup.records import write_record
from edge_latup.runtimes import choose_runtime, open_session
from edge_latup.runtimes.base import Session, SessionOptions
from edge_latup.segmentation.engine import Clock, Task, finish, infer, prepare
from edge_latup.segmentation.memory import Forecast, Resident, forecast, in_gib, process_bytes, smaller_policies
from edge_latup.segmentation.records import GaveWay, SegmentationRecord, Settings, sidecar_of
from edge_latup.spec import REGIONS, BrainCrop, ModelSpec, Region, Size
from edge_latup.versions import versions_of

PACKAGES: Final = ("edge-latup", "numpy", "nibabel", "openvino", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one case.

    seconds: wall time of each stage; "load" counts only what reading did not hide, "total" is the whole case.
    forecast: predicted peak RSS where a budget was given, else None. peak_bytes: the process's peak RSS since it began.
    """

    record: SegmentationRecord
    seconds: dict[str, float]
    forecast: Forecast | None
    peak_bytes: int


class Segmenter:
    """An artifact opened once, to segment cases one after the other; a context manager.

    Args:
        artifact: the model.
        runtime: None takes the artifact's first.
        options: threads, cache, precision.
        spec: the artifact's own spec unless given; what was overridden in it is recorded with every case.
        memory_budget: bytes the process may take; the declared policy gives way to smaller windows to keep it.

    Raises:
        ArtifactError: the artifact was not made for the runtime.
        MissingDependencyError: the runtime is not installed.
    """

    def __init__(
        self, artifact: Artifact, *, runtime: RuntimeName | None = None, options: SessionOptions | None = None,
        spec: ModelSpec | None = None, memory_budget: int | None = None,
    ) -> None:  # fmt: skip
        self.artifact, self.spec, self.budget = artifact, spec or artifact.manifest.spec, memory_budget
        self.runtime = choose_runtime(artifact, runtime)
        self.options = options or SessionOptions()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._opened: tuple[Size, Future[Session]] | None = None
        self._before: Resident | None = None

    def __enter__(self) -> Segmenter:
        # A brain crop's size is known only once its case is read; any other model loads while the first case is being read.
        if not isinstance(self.spec.spatial, BrainCrop):
            self._begin_loading(self.spec.spatial.size)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
        self._loader.shutdown()

    def segment_files(self, files: CaseFiles, out: Path) -> Outcome:
        """Segment one case and write `out` and its sidecar.

        Raises:
            CaseError: the case cannot be read.
            ArtifactError, MissingDependencyError: the model cannot be loaded or run.
            InputError: nothing fits the memory budget, or `out` cannot be written. No partial file is left.
        """
        clock = Clock()
        with clock.stage("total"):
            with clock.stage("read"):
                # A label beside the images is read for its convention alone: the label map is written in the same numbers.
                case = read_case(files, self.spec.modalities)
            with clock.stage("normalise"):
                task = prepare(case, self.spec)
            # The task has its own crop, or views of the images: what it does not need is freed before inference takes its memory.
            case = dataclasses.replace(case, images={}, label=None)
            spec, task, session, predicted = self._fitting(task, files, clock)
            label = finish(infer(session, spec, task, clock), case, spec, clock)
            with clock.stage("write"):
                write_label_map(label, case, out)
                record = self._record(files, spec, task, label, case.grid, out)
                _write_sidecar(record, out)
        return Outcome(record=record, seconds=clock.seconds, forecast=predicted, peak_bytes=process_bytes("VmHWM"))

    def settings(self, spec: ModelSpec | None = None) -> Settings:
        """What decides this segmenter's label maps."""
        options, manifest = self.options, self.artifact.manifest
        applied, gave_way = spec or self.spec, None
        if self.budget is not None and applied.spatial != self.spec.spatial:
            gave_way = GaveWay(declared=self.spec.spatial, memory_budget=self.budget)
        return Settings(
            runtime=self.runtime, float_precision=options.float_precision or manifest.float_precision, threads=options.thread_count,
            spec=applied, gave_way=gave_way,
        )  # fmt: skip

    def _begin_loading(self, size: Size) -> Future[Session]:
        if self._opened is None or self._opened[0] != size:
            self._close()
            options = dataclasses.replace(self.options, input_size=size)
            self._opened = (size, self._loader.submit(open_session, self.artifact, self.runtime, options))
        return self._opened[1]

    def _session(self, size: Size, clock: Clock) -> Session:
        with clock.stage("load"):
            opening = self._begin_loading(size)
            if opening.exception() is not None:
                self._opened = None  # a later case tries again: memory may be free by then
            return opening.result()

    def _close(self) -> None:
        """Close the session that is open, if it opened at all."""
        if self._opened is not None and self._opened[1].exception() is None:
            self._opened[1].result().__exit__(None, None, None)
        self._opened = None

    def _fitting(self, task: Task, files: CaseFiles, clock: Clock) -> tuple[ModelSpec, Task, Session, Forecast | None]:
        """The declared policy, or under a budget the largest that fits, with its session."""
        if self.budget is None:
            return self.spec, task, self._session(task.input_size, clock), None
        tried = []
        for spatial in smaller_policies(self.spec.spatial, self.spec.divisor):
            spec = self.spec.model_copy(update={"spatial": spatial})
            if spatial != self.spec.spatial:
                task = prepare(read_case(files, spec.modalities, with_label=False), spec)
            session = self._session(task.input_size, clock)
            activations = session.activation_bytes()
            if activations is None:
                raise InputError(
                    f"runtime {self.runtime} does not tell what memory it needs", "leave out --memory-budget, or use --runtime openvino"
                )
            # Once and for all cases: what later ones find resident is memory that the runtime has kept and will use again.
            self._before = self._before or Resident.measured()
            predicted = forecast(spec, task.input_size, task.shape, activations, self._before)
            if predicted.total <= self.budget:
                return spec, task, session, predicted
            tried.append(f"{spatial.kind} {'x'.join(str(side) for side in task.input_size)}: {in_gib(predicted.total)}")
        raise InputError(
            f"nothing fits a memory budget of {in_gib(self.budget)}; predicted peaks: {'; '.join(tried)}",
            "raise --memory-budget, or use an artifact of lower precision",
        )

    def _record(self, files: CaseFiles, spec: ModelSpec, task: Task, label: NDArray[np.uint8], grid: Grid, out: Path) -> SegmentationRecord:
        return SegmentationRecord(
            case=files.name, label_map=file_record(out), inputs=input_records(files, spec), artifact=self.artifact.manifest.name,
            artifact_sha256=self.artifact.digest, settings=self.settings(spec),
            input_shape=(1, len(spec.modalities), *task.input_size), windows=task.windows, windows_run=len(task.boxes),
            volumes_ml=region_volumes_ml(label, grid, spec.found_regions), versions=versions_of(*PACKAGES),
        )  # fmt: skip


def _write_sidecar(record: SegmentationRecord, label_map: Path) -> None:
    """Write the record beside its label map; where that fails, both go: a label map that nothing vouches for is not left."""
    sidecar = sidecar_of(label_map)
    try:
        write_record(record, sidecar)
    except OSError as error:
        for path in (label_map, sidecar):
            path.unlink(missing_ok=True)
        raise InputError(f"cannot write {sidecar}: {error.strerror or error}", "free space or choose another --out") from error


def file_record(path: Path) -> FileRecord:
    """Name, size and hash of a file."""
    return FileRecord(name=path.name, size=path.stat().st_size, sha256=sha256_of(path))


def input_records(files: CaseFiles, spec: ModelSpec) -> dict[str, FileRecord]:
    """The file of each modality that the spec reads."""
    return {modality: file_record(files.images[modality].path) for modality in spec.modalities}


def region_volumes_ml(label: NDArray[np.uint8], grid: Grid, regions: Iterable[Region]) -> dict[Region, float]:
    """Volume of each region in millilitres."""
    counts = [int(np.count_nonzero(label == value)) for value in range(4)]  # `bincount` would widen every voxel to int64
    voxel_mm3 = float(np.prod(grid.spacing_mm))
    return {region: float(sum(counts[value] for value in REGIONS[region])) * voxel_mm3 / 1000 for region in regions}
