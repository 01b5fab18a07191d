"""The cases of a cohort spread over the workers of a Dask cluster: one case a task, the same files as on one machine.

The workers reach artifact, cases and output folder under the same absolute paths, on a file system they share, and have this
package installed. Nothing but the job, the cases' paths and the results travels, and only to the scheduler that was named.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Generator, Sequence
from types import ModuleType
from typing import Any, Final

from edge_latup.artifact import open_artifact
from edge_latup.cases.layout import CaseFiles
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError, install_hint
from edge_latup.segmentation.case import Segmenter
from edge_latup.segmentation.cohort import CaseResult, Failure, Job, RunCases, failed, segment_one
from edge_latup.segmentation.resume import label_map_of

ADDRESS: Final = re.compile(r"(?:tcp|tls)://\S+:\d+")
SECONDS_TO_ANSWER: Final = 10
SECONDS_FOR_A_WORKER: Final = 60
RETRIES: Final = 2
"""Of a task that could not be started or whose result was lost. A worker that dies is replaced without counting here: the scheduler
gives up on a case only after the fourth worker died of it (its own setting, allowed-failures)."""


class _Kept:
    """The one segmenter of a worker process, closed when another job comes. One case at a time, however many threads the worker has."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._job: Job | None = None
        self._segmenter: Segmenter | None = None

    def segmenter(self, job: Job) -> Segmenter:
        """The segmenter of `job`, opened once.

        Raises:
            ArtifactError: the artifact is not the one that the run was started with.
        """
        if self._segmenter is None or self._job != job:
            self.close()
            if open_artifact(job.artifact.folder).digest != job.artifact.digest:
                raise ArtifactError(f"{job.artifact.folder} holds another model on this worker", "give every machine the same file system")
            self._job, self._segmenter = job, job.segmenter().__enter__()
        return self._segmenter

    def close(self) -> None:
        """Let go of the model."""
        if self._segmenter is not None:
            self._segmenter.__exit__(None, None, None)
        self._job = self._segmenter = None


_kept = _Kept()


def segment_on_worker(job: Job, files: CaseFiles) -> CaseResult:
    """One task. It depends on nothing but its arguments and the files they name, so it can be run again anywhere."""
    with _kept.lock:
        try:
            segmenter = _kept.segmenter(job)
        except Exception as error:  # noqa: BLE001  (a worker that cannot open the model fails its cases, not the run)
            return failed(files.name, job.out, error)
        return segment_one(segmenter, job, files)


def on_cluster(address: str) -> RunCases:
    """What runs cases on the cluster whose scheduler is at `address`.

    Raises:
        InputError: it is not an address such as tcp://host:8786.
        MissingDependencyError: distributed is not installed.
    """
    if not ADDRESS.fullmatch(address):
        raise InputError(f"--scheduler {address!r} is not an address", "write it as the scheduler prints it, such as tcp://10.0.0.5:8786")
    try:
        dask = importlib.import_module("distributed")
    except ImportError:
        raise MissingDependencyError("a cluster needs distributed", install_hint("cluster")) from None

    def run(job: Job, cases: Sequence[CaseFiles]) -> Generator[CaseResult, None, None]:
        with _connected(dask, address) as client:
            yield from _spread(dask, client, job, cases)

    return run


def _connected(dask: ModuleType, address: str) -> Any:
    """A client of a scheduler that has a worker. It opens no port and no dashboard.

    Raises:
        InputError: nobody answers, or there is no worker.
    """
    try:
        client = dask.Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except OSError as error:  # TimeoutError is one
        raise InputError(f"no scheduler answers at {address} ({error})", "start one: dask scheduler") from error
    try:
        client.wait_for_workers(1, timeout=SECONDS_FOR_A_WORKER)
    except TimeoutError as error:
        client.close()
        raise InputError(f"the scheduler at {address} has no worker", f"start some: dask worker {address} --nthreads 1") from error
    return client


def _spread(dask: ModuleType, client: Any, job: Job, cases: Sequence[CaseFiles]) -> Generator[CaseResult, None, None]:
    """Results as they come; what has not begun is cancelled when nobody asks for more."""
    # Not pure: Dask would otherwise give an earlier run's results for the same arguments, whatever became of the files.
    futures = {client.submit(segment_on_worker, job, files, pure=False, retries=RETRIES): files for files in cases}
    try:
        for future in dask.as_completed(futures, loop=client.loop):
            try:
                result: CaseResult = future.result()
            except Exception as error:  # noqa: BLE001  (the task itself never raises: the cluster lost it, and the others go on)
                result = _lost(job, futures[future], error)
            yield result
    finally:
        client.cancel(list(futures), force=True)


def _lost(job: Job, files: CaseFiles, error: Exception) -> CaseResult:
    """The failure of a case that came to no end anywhere, such as with KilledWorker."""
    kind = type(error).__name__
    hint = "run the same command again; if it is lost again, see that every worker has edge-latup and enough memory, or add --memory-budget"
    failure = Failure(kind=kind, message=f"the cluster lost this case ({kind}: {error})", hint=hint)
    return CaseResult(case=files.name, label_map=label_map_of(job.out, files.name), failure=failure)
