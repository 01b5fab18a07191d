"""What people read in a bundle: for IT, for the operator, about the model, and what changed since the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact
from edge_latup.bundle.gate_file import GateFile
from edge_latup.bundle.manifest import BundledArtifact, BundleManifest
from edge_latup.records import Record, write_text
from edge_latup.spec import ModelSpec

INSTALL_SH: Final = """#!/bin/sh
# Installs this bundle for the current user. Example: ./install.sh --key /media/key/public-key.json
for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
    if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        exec "$python" -I "$(dirname -- "$0")/install.py" "$@"
    fi
    if [ -n "$PYTHON" ]; then
        echo "error: PYTHON=$PYTHON is no Python 3.10 or newer" >&2
        echo "hint: name one that is, or leave PYTHON out" >&2
        exit 2
    fi
done
echo "error: no Python 3.10 or newer is on PATH" >&2
echo "hint: install one, or name it: PYTHON=/path/to/python3 ./install.sh ..." >&2
exit 2
"""
INSTALL_PS1: Final = """# Installs this bundle for the current user. Example: .\\install.ps1 --key E:\\public-key.json
$here = Split-Path -Parent $MyInvocation.MyCommand.Path
foreach ($candidate in @(if ($env:PYTHON) { $env:PYTHON } else { 'python', 'py' })) {
    if (-not (Get-Command $candidate -ErrorAction SilentlyContinue)) { continue }
    & $candidate -c 'import sys; sys.exit(sys.version_info < (3, 10))'
    if ($LASTEXITCODE -eq 0) {
        & $candidate -I (Join-Path $here 'install.py') @args
        exit $LASTEXITCODE
    }
}
Write-Error 'No Python 3.10 or newer was found. Install one, or name it in $env:PYTHON.'
exit 2
"""

README: Final = r"""# {label}

Brain-tumour segmentation for one workstation, offline. Target: {target}. Made {created} by the holder of key {key_id}.
**Not a medical device.** What the model is, what it was made of and what is known of its accuracy stands in MODEL-CARD.md.

## For IT

- What is in it: `manifest.json` lists every file with its SHA-256 and is signed (`manifest.sig`, Ed25519).
  `sbom.cdx.json` (CycloneDX 1.6) lists every package; `licences/` holds their licences.
- What it needs: {platform}, {needs}, about 1 GB of disk while it installs, no network, no administrator, no container.
- What it touches: the folder it is installed into (`--root`, default `~/edge-latup`) and nothing else. It opens no network connection.
- Verify before anything else, with an edge-latup or an `install.py` that did not come with this bundle:
  `edge-latup verify BUNDLE --key public-key.json`. The key must reach you by another way than the bundle.
- Install, in this folder: `./install.sh --key FOLDER/public-key.json` (Windows: `.\install.ps1 --key FOLDER\public-key.json`), with the
  key in another folder: a file added here is refused. It verifies, copies, installs the wheels offline, runs the golden case on this
  machine, and only then switches to the new version. Interrupted at any point, run it again.
- A bundle made before the one in use is refused unless you add `--allow-older`.
- Go back: `./install.sh --rollback`. Remove: delete the folder.
{notes}
## For the operator

- `segment CASE --out LABELS.nii.gz` segments one exam: a folder with {modalities} as NIfTI, one file each, on one grid and prepared as
  the model's training cases were (BraTS: co-registered and skull-stripped). DICOM is not read.
  `segment CASES --out FOLDER` does a folder of exams.
- Beside each label map a JSON file says which model made it of which files, and the tumour's volumes in mL.
- A self-test runs once a day and when the machine changes. If it fails, nothing is segmented: call whoever made this bundle.
"""
LABEL_NAMES: Final = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour"}
ENGINE: Final = (
    "- For TensorRT: its engine is built on the machine where this is installed, and was never seen by whoever made the bundle. What the"
    " golden case must give is reference numerics, computed by ONNX Runtime on a CPU, node by node, in float with Q/DQ rounding."
)


class FileChange(Record):
    """One file that differs from the bundle before."""

    path: str
    before: str | None = None
    """SHA-256; None where the file is new."""
    after: str | None = None
    """SHA-256; None where it is gone."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """The bundle that a new one replaces, and SHA-256 of its manifest.json."""

    manifest: BundleManifest
    digest: str


class ChangeRecord(Record):
    """CHANGES.json: why this bundle was made, what the gate said, and what differs from the bundle it replaces, if it replaces one."""

    schema_version: int = 1
    before: str | None
    """Name, version and SHA-256 of manifest.json of the earlier bundle; None where none was named."""
    reason: str
    artifacts_before: tuple[BundledArtifact, ...]
    artifacts_after: tuple[BundledArtifact, ...]
    gate: dict[str, Any] | None = None
    """The gate's decisions, as `edge-latup --json gate` printed them; None where none were given."""
    files: tuple[FileChange, ...]
    """Empty where no earlier bundle was named."""


def change_record(
    before: Before | None, reason: str, artifacts: Sequence[BundledArtifact], hashes: dict[str, str], gate: dict[str, Any] | None
) -> ChangeRecord:
    """Compare with an earlier bundle; `hashes` are those of the new files by path."""
    old = {file.path: file.sha256 for file in before.manifest.files} if before else hashes
    changed = [path for path in sorted({*old, *hashes}) if old.get(path) != hashes.get(path)]
    return ChangeRecord(
        before=f"{before.manifest.label} {before.digest}" if before else None, reason=reason,
        artifacts_before=before.manifest.artifacts if before else (), artifacts_after=tuple(artifacts), gate=gate,
        files=tuple(FileChange(path=path, before=old.get(path), after=hashes.get(path)) for path in changed),
    )  # fmt: skip


def installer() -> str:
    """Text of install.py, which needs only Python's standard library."""
    from importlib import resources

    return (resources.files("edge_latup.bundle") / "install.py").read_text(encoding="utf-8")


def write_installers(folder: Path, shell: str = INSTALL_SH) -> None:
    """install.py, install.sh and install.ps1; `shell` is the text of install.sh."""
    write_text(installer(), folder / "install.py")
    write_text(shell, folder / "install.sh")
    (folder / "install.sh").chmod(0o755)
    with (folder / "install.ps1").open("w", encoding="ascii", newline="\r\n") as file:
        file.write(INSTALL_PS1)


def model_card(artifacts: Sequence[Artifact], gate: GateFile) -> str:
    """MODEL-CARD.md from the artifacts' own manifests and what the gate said of them."""
    spec = artifacts[0].manifest.spec
    lines = [
        f"# {spec.name}", "", f"- Input: {', '.join(spec.modalities)}, one exam at a time; policy {spec.spatial.kind}.",
        f"- Output: label map on the exam's own grid: {_output(spec)}.", f"- Licence: {spec.licence or 'not stated'}.",
        "- Intended use: none is stated, and none is proven. Accuracy on your patients is not known until you measure it.", "",
    ]  # fmt: skip
    for artifact in artifacts:
        lines += _artifact_card(artifact, gate.of(artifact))
    return "\n".join(lines) + "\n"


def _output(spec: ModelSpec) -> str:
    """What a label map of this spec can hold."""
    if spec.regions is not None:
        return f"the regions {', '.join(spec.regions.order)}"
    return ", ".join(LABEL_NAMES[label] for label in spec.labels if label) or "nothing"


def _artifact_card(artifact: Artifact, gate: str | None) -> list[str]:
    manifest = artifact.manifest
    lines = [
        f"## {artifact.folder.name}",
        "",
        f"- Precision {manifest.precision} over {manifest.float_precision}; SHA-256 {artifact.digest}.",
    ]
    steps = [
        f"{step.operation} {', '.join(f'{name}={value}' for name, value in step.parameters.items())}".strip() for step in manifest.recipe
    ]
    lines += [f"- Made by: {'; '.join(steps) or 'not recorded'}."]
    lines += [f"- Against FP32: {gate}."] if gate else []
    lines += [ENGINE] if "tensorrt" in manifest.runtimes else []
    lines += [
        f"- Parity with {parity.reference} ({parity.candidate}): largest difference {parity.max_abs:.2g}, same class in "
        f"{parity.argmax_agreement:.5f} of voxels of one {parity.input}."
        for parity in manifest.parity
    ]
    seen = {"Trained on": manifest.trained_on, "Calibrated on": manifest.calibration}
    lines += [f"- {what}: {len(cases)} cases, by hash in its manifest.json." for what, cases in seen.items()]
    return [*lines, ""]


def readme(
    label: str, target: str, created: object, key_id: str, platform: str, pythons: Sequence[str], modalities: Sequence[str],
    notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """README.md; `notes` on single artifacts."""
    needs = f"CPython {', '.join(pythons)}" if pythons else "no Python, but zlib (and to install OpenSSL 3, sha256sum and a POSIX shell)"
    return README.format(
        label=label, target=target, created=created, key_id=key_id, platform=platform, needs=needs,
        modalities=", ".join(modalities), notes="".join(f"- {note.rstrip('.')}.\n" for note in notes),
    )  # fmt: skip
