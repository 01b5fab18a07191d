"""Makes a bundle: artifacts, wheelhouse, installer, golden case, papers; then lists, signs and archives it."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from edge_latup.artifact import MANIFEST_NAME as ARTIFACT_MANIFEST
from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bundle.canonical import from_canonical
from edge_latup.bundle.documents import INSTALL_SH, Before, change_record, model_card, readme, write_installers
from edge_latup.bundle.fit import notes_for, refuse_tensorrt, runtime_on, warnings_for
from edge_latup.bundle.gate_file import GateFile, read_gate
from edge_latup.bundle.golden import FOLDER, Expectation, Limits, computed, tolerance_of, write_golden, write_golden_case
from edge_latup.bundle.install import APP
from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.manifest import MANIFEST_NAME, BundledArtifact, BundleFile, BundleManifest, Label, Role
from edge_latup.bundle.own_wheel import build_own_wheel
from edge_latup.bundle.platforms import PLATFORMS, PlatformName
from edge_latup.bundle.reference import predictor_of
from edge_latup.bundle.sbom import NAME as SBOM
from edge_latup.bundle.sbom import write_licences, write_sbom
from edge_latup.bundle.sign import check_dates, files_in, sign_bundle
from edge_latup.bundle.standalone import INSTALL_SH as INSTALL_APP
from edge_latup.bundle.standalone import build_app, check_standalone, write_python_licence
from edge_latup.bundle.wheelhouse import Locked, lock_text, resolve
from edge_latup.errors import InputError
from edge_latup.manifest import RuntimeName
from edge_latup.records import write_record, write_text

EXTRAS: Final[dict[RuntimeName, tuple[str, ...]]] = {
    "openvino": ("core",), "onnxruntime": ("core", "onnxruntime", "audit"), "tensorrt": ("core", "tensorrt", "audit"),
}  # fmt: skip
"""Extras of edge-latup that a runtime needs on the target; core has what segmenting itself needs, audit what the self-test
needs to see which kernels ONNX Runtime or a TensorRT engine executes. TensorRT itself is the machine's own."""
ROLES: Final[tuple[tuple[str, Role], ...]] = (
    (f"{APP}/", "runtime"), ("artifacts/", "artifact"), ("golden/", "golden-case"),
    ("licences/", "licence"), ("install", "installer"), (SBOM, "sbom"),
    ("MODEL-CARD.md", "model-card"), ("CHANGES.json", "change-record"), ("README.md", "document"),
)  # fmt: skip
Progress = Callable[[str], None]
Wheels = dict[str, tuple[Locked, Path]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a bundle is to be.

    artifacts: folders, best first; the others are fallbacks. name, version: of the bundle. target: a profile's name.
    platform, pythons: what the wheelhouse serves. limits: promised for the best artifact. created: in UTC. expires: last day.
    previous: folder of the bundle that this one replaces. gate: what `edge-latup --json gate` printed. reason: of the change.
    """

    artifacts: tuple[Path, ...]
    name: str
    version: str
    target: str
    platform: PlatformName
    pythons: tuple[str, ...]
    created: datetime.date
    limits: Limits = field(default_factory=Limits)
    expires: datetime.date | None = None
    previous: Path | None = None
    gate: Path | None = None
    reason: str = "not stated"
    wheels: Path | None = None
    """Folder that keeps downloaded wheels from bundle to bundle; a temporary one unless given."""
    threads: int = 0
    standalone: bool = False
    """Bring a program with its own Python instead of wheels; `pythons` is then not used."""


def build_bundle(
    plan: Plan, key: SigningKey, out: Path, progress: Progress = lambda _: None, warn: Progress = lambda _: None
) -> BundleManifest:  # fmt: skip
    """Write the signed folder `out`; `warn` hears what will work worse on the target than it might.

    Raises:
        InputError: `out` exists, an artifact cannot run here or in no runtime that the clinic installs, one for TensorRT has no fallback,
            wheels are missing, `previous` is no bundle, or `gate` is not what the gate printed of one of the artifacts.
        ArtifactError: an artifact is damaged.
    """
    if out.exists():
        raise InputError(f"{out} exists", "choose another --out")
    _check_words(plan, key)
    opened = tuple(open_artifact(path) for path in plan.artifacts)
    _check(plan, opened)
    before, gate = _before(plan.previous), read_gate(plan.gate, opened)
    for told in (*warnings_for(opened, plan.platform), *gate.warnings(opened)):
        warn(told)
    if plan.standalone:
        check_standalone(plan.platform)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        manifest = _fill(plan, opened, (before, gate), key, part, progress)
        part.chmod(0o755)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _check_words(plan: Plan, key: SigningKey) -> None:
    """Refuse before the minutes that a bundle takes what its manifest or its key would refuse after them."""
    for what, word in (("name", plan.name), ("version", plan.version), ("target", plan.target)):
        try:
            TypeAdapter(Label).validate_python(word)
        except ValidationError:
            hint = "use letters, digits, . _ + and -, 40 at most, the first a letter or a digit"
            raise InputError(f"the {what} {word!r} cannot be part of a file's name", hint) from None
    if plan.expires is not None and plan.expires < plan.created:
        raise InputError(f"the bundle would expire on {plan.expires}, before it is made ({plan.created})", "choose a later --expires")
    check_dates(plan.created, key.public)


def _check(plan: Plan, opened: Sequence[Artifact]) -> None:
    names = [artifact.folder.resolve().name for artifact in opened]
    if not names or len(set(names)) < len(names):
        raise InputError(f"the artifacts' folders are called {', '.join(names) or 'nothing'}", "give each artifact a name of its own")
    for artifact in opened:
        if (runtime := runtime_on(plan.platform, artifact)) not in EXTRAS:
            hint = f"package artifacts for {' or '.join(EXTRAS)}"
            raise InputError(f"{artifact.folder} is for {runtime}, which no wheelhouse can bring", hint)
    specs = {artifact.manifest.spec.model_dump_json() for artifact in opened}
    if len(specs) > 1:
        raise InputError("the artifacts have different model specs, so one cannot stand in for the other", "package them apart")
    refuse_tensorrt(opened, plan.platform, plan.target, standalone=plan.standalone)


def _fill(
    plan: Plan, opened: Sequence[Artifact], history: tuple[Before | None, GateFile], key: SigningKey, part: Path, progress: Progress
) -> BundleManifest:
    before, gate = history
    bundled = [_copy(artifact, part) for artifact in opened]
    progress("computing what the golden case must give")
    _golden(plan, [open_artifact(part / one.folder) for one in bundled], bundled, part)
    with tempfile.TemporaryDirectory(prefix="edge-latup-wheels-") as temporary:
        store = (plan.wheels or Path(temporary)) / plan.platform
        wheels = (_app if plan.standalone else _wheelhouse)(plan, opened, part, store, progress)
        write_licences(part / "licences", (path for _, path in wheels.values()))
        write_sbom(part / SBOM, plan.name, plan.version, plan.created, wheels, opened)
    write_installers(part, INSTALL_APP if plan.standalone else INSTALL_SH)
    write_text(model_card(opened, gate), part / "MODEL-CARD.md")
    label, spec = f"{plan.name} {plan.version}", opened[0].manifest.spec
    text = readme(
        label, plan.target, plan.created, key.public.key_id, plan.platform, () if plan.standalone else plan.pythons, spec.modalities,
        notes_for(opened, plan.platform),
    )  # fmt: skip
    write_text(text, part / "README.md")
    hashes = {file.path: file.sha256 for file in files_in(part, role_of)}
    write_record(change_record(before, plan.reason, bundled, hashes, gate.printed), part / "CHANGES.json")
    progress("listing and signing")
    manifest = BundleManifest(
        name=plan.name, version=plan.version, created=plan.created, expires=plan.expires, key_id=key.public.key_id, target=plan.target,
        pythons=() if plan.standalone else plan.pythons, artifacts=tuple(bundled),
        previous=before.digest if before else None, files=files_in(part, role_of),
    )  # fmt: skip
    sign_bundle(part, manifest, key)
    return manifest


def role_of(path: str) -> Role:
    """What a file of a bundle is for, by its path."""
    if path.startswith("wheels/"):
        return "wheel" if path.endswith(".whl") else "lock"
    return next((role for start, role in ROLES if path.startswith(start)), "other")


def _copy(artifact: Artifact, part: Path) -> BundledArtifact:
    folder = f"artifacts/{artifact.folder.resolve().name}"
    manifest = artifact.manifest
    (part / folder).mkdir(parents=True)
    # What else lies there, such as a label map of a patient, is not the artifact's.
    for name in (ARTIFACT_MANIFEST, *(file.name for file in manifest.files)):
        shutil.copyfile(artifact.folder / name, part / folder / name)
    return BundledArtifact(
        folder=folder, digest=artifact.digest, format=manifest.format, runtimes=manifest.runtimes, precision=manifest.precision
    )


def _golden(plan: Plan, opened: Sequence[Artifact], bundled: Sequence[BundledArtifact], part: Path) -> None:
    folder = part / FOLDER
    folder.mkdir()
    files, expectations = write_golden_case(folder), []
    for artifact, one in zip(opened, bundled, strict=True):
        runtime, name = runtime_on(plan.platform, artifact), f"{Path(one.folder).name}.npz"
        reference = runtime == "tensorrt"
        with predictor_of(artifact, runtime, plan.threads) as session:
            computed(session, files, artifact.manifest.spec).write(folder / name)
        expectations.append(
            Expectation(
                artifact=one.folder, digest=one.digest, runtime="onnxruntime" if reference else runtime, file=name,
                numerics="reference" if reference else "executed", tolerance=tolerance_of(artifact),
                limits=plan.limits if one is bundled[0] else Limits(),
            )
        )  # fmt: skip
    write_golden(folder, expectations)


def _extras(plan: Plan, opened: Sequence[Artifact]) -> set[str]:
    return {extra for artifact in opened for extra in EXTRAS[runtime_on(plan.platform, artifact)]}


def _wheelhouse(plan: Plan, opened: Sequence[Artifact], part: Path, store: Path, progress: Progress) -> Wheels:
    """Wheels and a lock for each Python; the lock and the file of each, by file name."""
    folder = part / "wheels"
    folder.mkdir()
    own, found = build_own_wheel(folder), Wheels()
    for python in plan.pythons:
        progress(f"wheels for {plan.platform}, Python {python}")
        locked = resolve(own, _extras(plan, opened), PLATFORMS[plan.platform], python, store)
        for one in locked:
            if not (folder / one.file).exists():
                shutil.copyfile(store / one.file, folder / one.file)
            found.setdefault(one.file, (one, folder / one.file))
        write_text(lock_text(locked), folder / f"lock-{python}.txt")
    return found


def _app(plan: Plan, opened: Sequence[Artifact], part: Path, store: Path, progress: Progress) -> Wheels:
    """The program without Python, and what was frozen into it."""
    progress("freezing the program (minutes)")
    own = build_own_wheel(_made(store / "own"))
    locked = build_app(own, _extras(plan, opened), plan.platform, store, part)
    write_python_licence(part / "licences")
    return {one.file: (one, own if one.file == own.name else store / one.file) for one in locked}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _before(folder: Path | None) -> Before | None:
    if folder is None:
        return None
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not the folder of a bundle", "give the unpacked bundle that this one replaces")
    content = path.read_bytes()
    return Before(manifest=from_canonical(BundleManifest, content, MANIFEST_NAME), digest=hashlib.sha256(content).hexdigest())


def size_by_role(files: Sequence[BundleFile]) -> dict[str, int]:
    """Bytes of each role, largest first."""
    sizes: dict[str, int] = {}
    for file in files:
        sizes[file.role] = sizes.get(file.role, 0) + file.size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))
