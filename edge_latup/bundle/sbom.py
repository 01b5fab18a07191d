"""The bill of materials: CycloneDX 1.6 JSON of every package and model in the bundle, with hashes, licences and who needs whom."""

from __future__ import annotations

import datetime
import email.parser
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact
from edge_latup.bundle.wheelhouse import OWN, Locked

NAME: Final = "sbom.cdx.json"
NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/bom/edge-latup")
"""Serial numbers are derived from what is listed: the same bundle has the same one."""


def metadata_of(wheel: Path) -> Message:
    """METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1)
        return email.parser.Parser().parsestr(opened.read(name).decode("utf-8"))


def licence_of(metadata: Message) -> str:
    """What a package says its licence is: an SPDX expression where it has one, else its classifier or first line."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [str(line) for line in metadata.get_all("Classifier") or () if str(line).startswith("License ::")]
    if classifiers:
        return "; ".join(line.rpartition("::")[2].strip() for line in classifiers)
    stated = str(metadata.get("License") or "").strip().splitlines()
    return stated[0].strip() if stated and stated[0].strip() else "not stated"


def write_sbom(
    path: Path, name: str, version: str, created: datetime.date, wheels: Mapping[str, tuple[Locked, Path]], artifacts: Iterable[Artifact]
) -> None:  # fmt: skip
    """Write the bill of materials.

    Args:
        path: where to.
        name: of the bundle.
        version: of the bundle.
        created: of the bundle.
        wheels: lock and file by file name; one package may come in a wheel for each Python.
        artifacts: the models.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, "\n".join([name, version, *sorted(wheels)])))
    root = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=f"{name}-{version}")
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.datetime.combine(created, datetime.time(), datetime.timezone.utc)
    packages = {file: _package(locked, wheel) for file, (locked, wheel) in sorted(wheels.items())}
    models = [_model(artifact) for artifact in artifacts]
    for component in (*packages.values(), *models):
        bom.components.add(component)
    for file, (locked, _) in sorted(wheels.items()):
        needed = [packages[other] for other, (one, _) in sorted(wheels.items()) if one.name in locked.requires]
        bom.register_dependency(packages[file], needed)
    bom.register_dependency(root, [*models, *(packages[file] for file, (locked, _) in sorted(wheels.items()) if locked.name == OWN)])
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")


def _package(locked: Locked, wheel: Path) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

    return Component(
        name=locked.name, version=locked.version, type=ComponentType.LIBRARY, bom_ref=locked.file,
        purl=PackageURL("pypi", None, locked.name, locked.version, {"file_name": locked.file}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=locked.sha256)],
        licenses=[DisjunctiveLicense(name=licence_of(metadata_of(wheel)))],
    )  # fmt: skip


def _model(artifact: Artifact) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense

    manifest = artifact.manifest
    return Component(
        name=manifest.name, version=f"{manifest.precision}-{artifact.digest[:12]}", type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"{manifest.name}-{artifact.digest}", hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.digest)],
        licenses=[DisjunctiveLicense(name=manifest.spec.licence or "not stated")],
    )  # fmt: skip


def write_licences(folder: Path, wheels: Iterable[Path]) -> None:
    """Copy every licence file out of the wheels, a folder a package."""
    for wheel in sorted(wheels):
        metadata = metadata_of(wheel)
        place = folder / f"{metadata['Name']}-{metadata['Version']}".lower()
        with zipfile.ZipFile(wheel) as opened:
            for name in opened.namelist():
                parts = name.split("/")
                if parts[0].endswith(".dist-info") and _is_licence(parts[1:]) and not name.endswith("/"):
                    place.mkdir(parents=True, exist_ok=True)
                    (place / _plain("-".join(part for part in parts[1:] if part != "licenses"))).write_bytes(opened.read(name))
        if not place.exists():
            place.mkdir(parents=True)
            (place / "LICENCE-AS-STATED.txt").write_text(licence_of(metadata) + "\n", encoding="utf-8")


def _is_licence(parts: list[str]) -> bool:
    last = parts[-1].lower()
    return parts[0] == "licenses" or last.startswith(("licen", "copying", "notice", "author", "third"))


def _plain(name: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._+-") else "-" for letter in name)
    return kept[-100:].rstrip(".") or "licence"
