"""`edge-latup verify`: is a bundle what its maker signed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_latup.cli.output import output

if TYPE_CHECKING:
    from edge_latup.bundle.verify import VerifiedBundle


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder, .tar.zst or .zip.")],
    key: Annotated[Path, typer.Option(help="The maker's public-key.json, got by another way than the bundle.")],
    unpack: Annotated[
        Path | None, typer.Option(help="Folder to make, with a copy of which every byte was hashed while it was written: install from it.")
    ] = None,
) -> None:
    """Check every file of a bundle against its maker's signature; nothing of it is run. Exit code 5: do not install it."""
    from edge_latup.bundle.keys import read_public_key
    from edge_latup.bundle.unpack import unpack_verified
    from edge_latup.bundle.verify import verify as check

    public = read_public_key(key)
    found = check(bundle, public) if unpack is None else unpack_verified(bundle, public, unpack)
    for line in _lines(found):
        output.line(line)
    if unpack is not None:
        output.line(f"unpacked: {unpack}")
    output.result(_data(found))


def _lines(found: VerifiedBundle) -> list[str]:
    manifest, key = found.manifest, found.key
    ends = [f"the {what} expires on {day}" for what, day in (("bundle", manifest.expires), ("key", key.expires)) if day]
    return [
        f"{found.path} is as it was signed: {len(manifest.files)} files, {manifest.size / 2**20:,.1f} MiB",
        f"bundle: {manifest.name} {manifest.version} of {manifest.created} for {manifest.target}",
        f"signed: {key.owner}, key {key.key_id}" + "".join(f"; {end}" for end in ends),
        f"manifest: SHA-256 {found.digest}",
    ]


def _data(found: VerifiedBundle) -> dict[str, Any]:
    return {
        "verified": True,
        "form": found.form,
        "sha256": found.digest,
        "size": found.manifest.size,
        "key": found.key.model_dump(mode="json"),
        "manifest": found.manifest.model_dump(mode="json"),
    }
