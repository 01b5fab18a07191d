"""`edge-latup package build`: a signed bundle for machines without a network."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.output import output
from edge_latup.cli.passphrase import the_passphrase
from edge_latup.errors import InputError


def build(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifact folders, best first; the others are fallbacks.")],
    out: Annotated[Path, typer.Option(help="The bundle: a folder, which is also written as FOLDER.tar.zst and, for Windows, FOLDER.zip.")],
    key: Annotated[Path, typer.Option(help="Folder that `edge-latup package keygen` made.")],
    target: Annotated[str, typer.Option(help="What it is for, such as x86-64-avx2: see `edge-latup targets`.")],
    name: Annotated[str, typer.Option(help="Of the bundle.")] = "edge-latup-bundle",
    version: Annotated[str, typer.Option(help="Of the bundle.")] = "1",
    platform: Annotated[str | None, typer.Option(help="linux-x86-64, linux-aarch64 or windows-x86-64; the target's unless given.")] = None,
    python: Annotated[
        list[str] | None, typer.Option(help="Python to bring wheels for; may be repeated. 3.10 to 3.13 unless given.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File whose first line opens the private key; asked for on the terminal unless given.")
    ] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Promised: the self-test fails if one input takes longer.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Promised, such as 1GiB: the self-test fails if its process takes more.")] = None,
    expires: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day on which it verifies.")] = None,
    previous: Annotated[Path | None, typer.Option(help="Folder of the bundle that this one replaces, for the change record.")] = None,
    gate: Annotated[
        Path | None, typer.Option(help="What `edge-latup --json gate RUN` printed, for the change record and the model card.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why the bundle is changed, for the change record.")] = "not stated",
    wheels: Annotated[Path | None, typer.Option(help="Folder that keeps downloaded wheels for the next bundle.")] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="For machines without Python: a program with its own Python, for this machine's platform.")
    ] = False,
) -> None:
    """Put artifacts, wheels, installer, golden case and papers into one signed folder and archive."""
    from edge_latup.bundle.build import Plan, build_bundle, size_by_role
    from edge_latup.bundle.golden import Limits
    from edge_latup.bundle.keys import PRIVATE_NAME, PUBLIC_NAME, is_encrypted, read_public_key, read_signing_key
    from edge_latup.bundle.manifest import creation_date
    from edge_latup.bundle.platforms import PLATFORMS, PYTHONS
    from edge_latup.bundle.sign import write_archive
    from edge_latup.segmentation.memory import parse_bytes
    from edge_latup.targets.profile import load_profile

    profile = load_profile(target)
    chosen = platform or ("linux-aarch64" if profile.architecture == "aarch64" else "linux-x86-64")
    if chosen not in PLATFORMS:
        raise InputError(f"there is no platform {chosen!r}", f"choose one of {', '.join(PLATFORMS)}")
    if unknown := set(python or ()) - set(PYTHONS):
        raise InputError(f"Python {sorted(unknown)[0]} is not served", f"choose from {', '.join(PYTHONS)}")
    if max_latency_ms is not None and not max_latency_ms > 0:
        raise InputError(f"--max-latency-ms {max_latency_ms:g} is no time", "write milliseconds above 0")
    archives = [out.with_name(f"{out.name}{ending}") for ending in ((".zip",) if chosen.startswith("windows") else (".tar.zst",))]
    for archive in archives:
        if archive.exists():
            raise InputError(f"{archive} exists", "choose another --out")
    passphrase = None
    if passphrase_file is not None or is_encrypted(key / PRIVATE_NAME):
        passphrase = the_passphrase(passphrase_file, twice=False, remedy="add --passphrase-file FILE")
    signing = read_signing_key(key / PRIVATE_NAME, read_public_key(key / PUBLIC_NAME), passphrase)
    plan = Plan(
        artifacts=tuple(artifacts), name=name, version=version, target=profile.name, platform=chosen, pythons=tuple(python or PYTHONS),
        created=creation_date(), limits=Limits(latency_ms=max_latency_ms, peak_bytes=parse_bytes(max_memory) if max_memory else None),
        expires=expires.date() if expires else None, previous=previous, gate=gate, reason=reason, wheels=wheels,
        standalone=standalone,
    )  # fmt: skip
    warnings: list[str] = []
    manifest = build_bundle(plan, signing, out, output.note, warnings.append)
    for archive in archives:
        output.note(f"writing {archive}")
        write_archive(out, archive)
    rows = [(role, f"{size / 1e6:,.1f}") for role, size in size_by_role(manifest.files).items()]
    output.table(f"{manifest.label} for {target}: {len(manifest.files)} files", ("what", "MB"), rows)
    for told in warnings:
        output.warning(told)
    output.line(f"verify: edge-latup verify {archives[0]} --key {key / PUBLIC_NAME}")
    installing = ".\\install.ps1 --key FOLDER\\" if chosen.startswith("windows") else "./install.sh --key FOLDER/"
    output.line(f"install there, in the bundle's folder, with the key from another one: {installing}{PUBLIC_NAME}")
    result = {"bundle": str(out), "archives": [str(path) for path in archives], "files": len(manifest.files), "bytes": manifest.size}
    output.result({**result, "warnings": warnings})
