"""`edge-latup segment`: one case or a cohort, files to label maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edge_latup.cli.options import Threads, one_case, parse_runtime, parse_size
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.cases.layout import CaseFiles
    from edge_latup.segmentation.case import Outcome
    from edge_latup.segmentation.cohort import CaseResult, CohortReport, Job
    from edge_latup.segmentation.records import SegmentationRecord

Out = Annotated[
    Path,
    typer.Option(
        help="A name that ends in .nii.gz, .nii or .mha: the label map of one case, replaced where it exists. Any other name: a folder for "
        "NAME.nii.gz and NAME.json of every case, resumed where an earlier run stopped."
    ),
]
Policy = Annotated[str | None, typer.Option(help="centre-crop, brain-crop or sliding-window; the artifact's own unless given.")]
Window = Annotated[str | None, typer.Option(help="Size of a sliding window or centre crop, such as 96 or 128x128x96.")]
Overlap = Annotated[float | None, typer.Option(help="Share of a sliding window that the next one covers again, from 0 to below 1.")]
BlendingOption = Annotated[str | None, typer.Option("--blending", help="constant or gaussian weights of a sliding window's voxels.")]
Tta = Annotated[str | None, typer.Option(help="Views that vote, such as identity,mirror,rotate; identity alone for none.")]
MinComponent = Annotated[int | None, typer.Option(help="Components of one class with fewer voxels become background; 0 keeps all.")]
MinTumour = Annotated[int | None, typer.Option(help="Tumours, of all classes together, with fewer voxels become background.")]
MinEnhancing = Annotated[int | None, typer.Option(help="Enhancing tumour with fewer voxels in all becomes necrotic core.")]
Threshold = Annotated[float | None, typer.Option(help="Tumour below this probability becomes background.")]
MemoryBudget = Annotated[str | None, typer.Option(help="Most memory the process may take, such as 2GiB: windows shrink until it is kept.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps compiled models (OpenVINO) or engines (TensorRT) from run to run.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace finished label maps of another model, settings, files or tool, or changed by hand."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Spread a cohort over a Dask cluster, tcp://HOST:PORT. Artifact, cases, --out and --cache must lie on a file system that "
        "every worker sees under the same path; --threads is for each worker."
    ),
]


def segment(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    case: Annotated[Path, typer.Argument(help="Case folder, 4-D file, or a folder of cases.")],
    out: Out,
    policy: Policy = None,
    window: Window = None,
    overlap: Overlap = None,
    blending: BlendingOption = None,
    tta: Tta = None,
    min_component: MinComponent = None,
    min_tumour: MinTumour = None,
    min_enhancing: MinEnhancing = None,
    threshold: Threshold = None,
    memory_budget: MemoryBudget = None,
    runtime: Annotated[str | None, typer.Option(help="The artifact's first unless given.")] = None,
    threads: Threads = 0,
    cache: Cache = None,
    overwrite: Overwrite = False,
    scheduler: Scheduler = None,
) -> None:
    """Segment one case, or all cases of a folder."""
    from edge_latup.artifact import open_artifact
    from edge_latup.runtimes.base import SessionOptions
    from edge_latup.segmentation.cohort import Job
    from edge_latup.segmentation.memory import parse_bytes
    from edge_latup.segmentation.overrides import Overrides, overridden, parse_name, parse_views
    from edge_latup.spec import Blending

    asked = Overrides(
        policy=policy, window=parse_size(window, "--window") if window else None, overlap=overlap, threshold=threshold,
        blending=parse_name(blending, get_args(Blending), "--blending") if blending else None,
        views=parse_views(tta) if tta else None, min_component=min_component, min_tumour=min_tumour, min_enhancing=min_enhancing,
    )  # fmt: skip
    opened = open_artifact(artifact.absolute() if scheduler else artifact)
    job = Job(
        artifact=opened, spec=overridden(opened.manifest.spec, asked), out=out, overwrite=overwrite,
        runtime=parse_runtime(runtime) if runtime else None, memory_budget=parse_bytes(memory_budget) if memory_budget else None,
        # The number is settled here: a worker's own cores decide nothing.
        options=SessionOptions(threads=SessionOptions(threads=threads).thread_count, cache_dir=cache),
    )  # fmt: skip
    _one(job, case, scheduler) if _is_file_name(out) else _cohort(job, case, scheduler)


def _is_file_name(out: Path) -> bool:
    """Whether --out names one label map rather than a folder.

    Raises:
        InputError: it has an ending of neither.
    """
    from edge_latup.segmentation.records import NIFTI_ENDINGS

    if out.name.lower().endswith(NIFTI_ENDINGS):
        return True
    if out.suffix and not out.is_dir():
        hint = "end it with .nii.gz for one case; make a folder whose name holds a dot first"
        raise InputError(f"--out {out} is not a NIfTI name, and no folder that exists", hint)
    return False


def _one(job: Job, case: Path, scheduler: str | None) -> None:
    if scheduler:
        raise InputError("--scheduler is for a cohort, but --out is one file", "give a folder: --out FOLDER")
    files = one_case(case, ", or give a folder for all: --out FOLDER")
    _check_file(job.out, files)
    with job.segmenter() as segmenter:
        outcome = segmenter.segment_files(files, job.out)
    output.result({"label_map": str(job.out), **_figures(outcome)}, f"{job.out}: {_line(outcome)}")


def _check_file(out: Path, files: CaseFiles) -> None:
    """Refuse what cannot be written, or would replace the exam, before the minutes of inference."""
    from edge_latup.segmentation.cohort import refuse_unwritable

    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist", "make it, or choose another --out")
    sources = [*(source.path for source in files.images.values()), *([files.label] if files.label else [])]
    if any(out.resolve() == source.resolve() for source in sources):
        raise InputError(f"--out {out} is a file of the case itself", "choose another name: a case is never written over")
    refuse_unwritable(out.parent)


def _cohort(job: Job, root: Path, scheduler: str | None) -> None:
    from edge_latup.segmentation.cluster import on_cluster
    from edge_latup.segmentation.cohort import find_cohort, run_cohort, run_here

    if scheduler:
        options = dataclasses.replace(job.options, cache_dir=job.options.cache_dir and job.options.cache_dir.absolute())
        job, root = dataclasses.replace(job, out=job.out.absolute(), options=options), root.absolute()
    run = on_cluster(scheduler) if scheduler else run_here
    cases, refused = find_cohort(root, job.out)
    with output.progress("segmenting", len(cases)) as bar:
        report = run_cohort(job, cases, bar.update, run)
    _show(dataclasses.replace(report, results=(*report.results, *refused)), job.out)


def _show(report: CohortReport, out: Path) -> None:
    """Print what came of a cohort.

    Raises:
        InputError: a case failed, or was not reached.
    """
    for result in report.results:
        if result.record is not None:
            output.line(f"{result.case}: {_line(result.outcome) if result.outcome else f'{_volumes(result.record)}; verified, skipped'}")
        if result.failure is not None and result.failure.trace:
            output.warning(f"{result.case} failed in a way that was not foreseen; please report it\n{result.failure.trace}")
    failures = {result.case: result.failure for result in report.results if result.failure is not None}
    if failures:
        rows = [(case, failure.message, failure.hint) for case, failure in failures.items()]
        output.table("failed", ("case", "message", "hint"), rows, left=3)
    counts = ", ".join(f"{count} {status}" for status, count in _counts(report).items() if count)
    output.result(_cohort_figures(report, out), f"{out}: {counts}")
    if failures:
        names = ", ".join([*list(failures)[:5], *(["..."] if len(failures) > 5 else [])])
        hint = "mend what their messages say and run the same command again: what is finished is kept"
        left = f"; the disk is full, {len(report.not_started)} were not started" if report.not_started else ""
        raise InputError(f"{len(failures)} of {len(report.results) + len(report.not_started)} cases failed: {names}{left}", hint)


def _counts(report: CohortReport) -> dict[str, int]:
    counts = {status: sum(result.status == status for result in report.results) for status in ("written", "verified", "failed")}
    return {**counts, "not started": len(report.not_started)}


def _volumes(record: SegmentationRecord) -> str:
    return ", ".join(f"{region} {volume:.1f} mL" for region, volume in record.volumes_ml.items())


def _line(outcome: Outcome) -> str:
    """Volumes, windows, memory and seconds of one case in one line."""
    from edge_latup.segmentation.memory import in_gib

    record, seconds = outcome.record, dict(outcome.seconds)
    total = seconds.pop("total")
    parts = [_volumes(record)]
    if record.settings.spec.spatial.kind == "sliding-window":
        parts.append(f"{record.windows_run} of {record.windows} windows hold head")
    if record.settings.gave_way is not None:
        parts.append(f"in windows of {'x'.join(map(str, record.input_shape[2:]))} to keep the memory budget")
    if outcome.forecast is not None:
        parts.append(f"peak {in_gib(outcome.peak_bytes)}, predicted {in_gib(outcome.forecast.total)}")
    stages = ", ".join(f"{stage} {time:.1f}" for stage, time in seconds.items())
    return "; ".join([*parts, f"{total:.1f} s ({stages})"])


def _figures(outcome: Outcome) -> dict[str, Any]:
    """What --json tells of a case that was segmented."""
    figures = {
        "volumes_ml": outcome.record.volumes_ml, "seconds": outcome.seconds, "windows": outcome.record.windows,
        "windows_run": outcome.record.windows_run, "peak_rss_bytes": outcome.peak_bytes,
    }  # fmt: skip
    if outcome.forecast is not None:
        figures["forecast"] = {**dataclasses.asdict(outcome.forecast), "total": outcome.forecast.total}
    return figures


def _cohort_figures(report: CohortReport, out: Path) -> dict[str, Any]:
    def one(result: CaseResult) -> dict[str, Any]:
        about = {"case": result.case, "status": result.status, "label_map": str(result.label_map)}
        if result.outcome is not None:
            return {**about, **_figures(result.outcome)}
        return {**about, "volumes_ml": result.record.volumes_ml if result.record else {}}

    failures = [
        {"case": result.case, "kind": result.failure.kind, "message": result.failure.message, "hint": result.failure.hint}
        for result in report.results
        if result.failure is not None
    ]
    cases = [one(result) for result in report.results if result.failure is None]
    return {"out": str(out), "cases": cases, "failures": failures, "not_started": list(report.not_started)}
