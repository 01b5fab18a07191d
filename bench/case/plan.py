"""What a comparison is asked to do: which rows, and whether they can be compared at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_latup.artifact import Artifact
from edge_latup.bench.case.policies import ONE_PASS, POLICIES, OwnPolicy, with_spatial
from edge_latup.bench.case.store import comparison_path, label_map_path
from edge_latup.bench.case.with_monai import check_monai, check_plain
from edge_latup.bench.case.worker import CaseJob
from edge_latup.bench.run import Entry
from edge_latup.cases.layout import CaseFiles
from edge_latup.errors import InputError
from edge_latup.manifest import Manifest
from edge_latup.runtimes import choose_runtime
from edge_latup.runtimes.base import usable_cores
from edge_latup.segmentation.overrides import Overrides, overridden
from edge_latup.spec import Blending, SlidingWindow

FULL, FOREGROUND = "monai-full", "monai-foreground"
"""Names of MONAI's rows."""


@dataclass(frozen=True, kw_only=True)
class CasePlan:
    """What to compare on one case.

    reference: the PyTorch artifact that MONAI slides its windows with.
    entries: our own rows' artifacts; one of them is FP32, with which the others' label maps are compared.
    overlap, blending: of the windows, on both sides.
    repeats, seconds: warm runs of our own rows after the first, unless the seconds end first. monai_runs: all runs of MONAI's rows; 0
        leaves them out.
    """

    files: CaseFiles
    reference: Artifact
    entries: tuple[Entry, ...]
    policies: tuple[OwnPolicy, ...] = tuple(POLICIES)
    overlap: float = 0.25
    blending: Blending = "constant"
    repeats: int = 5
    seconds: float = 60.0
    monai_runs: int = 1
    threads: int = field(default_factory=usable_cores)
    command: str = ""

    @property
    def windows(self) -> SlidingWindow:
        """The windows of MONAI's rows and of our own `sliding-window`."""
        return SlidingWindow(
            size=self.reference.manifest.spec.spatial.size, overlap=self.overlap, blending=self.blending, skip_air=False
        )  # fmt: skip

    @property
    def fp32(self) -> Entry:
        """The entry the others' label maps are compared with: the first in FP32 throughout.

        Raises:
            InputError: there is none.
        """
        for entry in self.entries:
            if entry.artifact.manifest.precision == "fp32" and entry.artifact.manifest.storage == "float32":
                return entry
        raise InputError("none of the artifacts is FP32, so there is nothing to agree with", "add the artifact that edge-latup export made")


def jobs(plan: CasePlan, out: Path) -> list[CaseJob]:
    """Every row but the commands', in the order they run: our own first, because a mistake shows there in seconds."""
    pytorch = Entry(artifact=plan.reference, runtime="pytorch")
    own = [(entry, policy) for entry in plan.entries for policy in plan.policies]
    own += [(pytorch, policy) for policy in plan.policies if policy in ONE_PASS]
    return [*(_own_job(plan, entry, policy, out) for entry, policy in own), *(_monai_jobs(plan, out) if plan.monai_runs else [])]


def _own_job(plan: CasePlan, entry: Entry, policy: OwnPolicy, out: Path) -> CaseJob:
    name = f"{entry.name}-{policy}"
    return CaseJob(
        name=name, engine="edge-latup", policy=policy, artifact=str(entry.artifact.folder), runtime=entry.runtime,
        spec=with_spatial(entry.artifact.manifest.spec, POLICIES[policy](plan.windows)), case=str(plan.files.path),
        label_map=str(label_map_path(out, name)), threads=plan.threads, repeats=plan.repeats, seconds=plan.seconds,
    )  # fmt: skip


def _monai_jobs(plan: CasePlan, out: Path) -> list[CaseJob]:
    spec = with_spatial(plan.reference.manifest.spec, plan.windows)
    common = {
        "engine": "monai", "artifact": str(plan.reference.folder), "runtime": "pytorch", "spec": spec, "case": str(plan.files.path),
        "threads": plan.threads, "repeats": plan.monai_runs - 1, "seconds": 1e9,
    }  # fmt: skip
    rows = {FOREGROUND: "foreground", FULL: "full"}
    return [
        CaseJob.model_validate({**common, "name": name, "policy": policy, "label_map": str(label_map_path(out, name))})
        for name, policy in rows.items()
    ]


def has_command(job: CaseJob, entries: Sequence[Entry]) -> bool:
    """Whether the job is one pass that `edge-latup segment ARTIFACT --policy ...` does just so, on OpenVINO, which keeps a cache."""
    if job.engine != "edge-latup" or job.runtime != "openvino" or job.policy not in ONE_PASS:
        return False
    declared = next(entry.artifact.manifest.spec for entry in entries if str(entry.artifact.folder) == job.artifact)
    return overridden(declared, Overrides(policy=job.policy)) == job.spec


def refuse_bad_plan(plan: CasePlan, out: Path) -> None:
    """Find what is wrong before anything slow starts.

    Raises:
        InputError: the artifacts are not forms of one network, rows share a name, or `out` holds something.
        MissingDependencyError: MONAI or a runtime is not installed.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "choose another --out: the records of a comparison are a folder")
    if comparison_path(out).exists():
        raise InputError(f"{out} already holds a comparison", "choose another --out: records are never mixed")
    _check_reference(plan.reference)
    if plan.monai_runs:
        check_monai()
        check_plain(with_spatial(plan.reference.manifest.spec, plan.windows))
    for entry in plan.entries:
        choose_runtime(entry.artifact, entry.runtime)
        _check_same_network(plan.reference, entry.artifact)
    plan.fp32  # noqa: B018  (raises where there is none)
    names = [job.name for job in jobs(plan, out)]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two rows are named {', '.join(doubles)}", "a row is known by its artifact's name: give each artifact its own")


def _check_reference(reference: Artifact) -> None:
    choose_runtime(reference, "pytorch")
    check_plain(reference.manifest.spec)


def _check_same_network(reference: Artifact, artifact: Artifact) -> None:
    """One checkpoint behind both, as far as their recipes tell, and one spec but for where the network looks."""
    ours, theirs = artifact.manifest, reference.manifest
    if with_spatial(ours.spec, theirs.spec.spatial) != theirs.spec:
        raise InputError(f"{artifact.folder} and {reference.folder} have different model specs", "make both from one checkpoint")
    known = {digest for digest in (_checkpoint(ours), _checkpoint(theirs)) if digest}
    if len(known) > 1:
        raise InputError(f"{artifact.folder} and {reference.folder} come from different checkpoints", "make both from one checkpoint")


def _checkpoint(manifest: Manifest) -> str | None:
    found = [step.parameters["checkpoint_sha256"] for step in manifest.recipe if "checkpoint_sha256" in step.parameters]
    return str(found[0]) if found else None
