"""`edge-latup package`: what the maker of bundles does."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.output import output
from edge_latup.cli.package_build import build
from edge_latup.cli.passphrase import the_passphrase
from edge_latup.errors import InputError

package = typer.Typer(no_args_is_help=True, help="Make signed bundles for machines without a network, and the keys that sign them.")


@package.command()
def keygen(
    out: Annotated[Path, typer.Option(help="Folder for signing-key.pem, public-key.json and public-key.pem; made if missing.")],
    owner: Annotated[str, typer.Option(help="Whom the clinic will see as the maker, such as 'Imaging group <ai@hospital.example>'.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File whose first line encrypts the private key; asked for on the terminal unless given.")
    ] = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the private key unencrypted.")] = False,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC) on which bundles signed with it verify.")
    ] = None,
) -> None:
    """Make a pair of Ed25519 keys. Nothing is overwritten, and no passphrase is taken from the command line."""
    from edge_latup.bundle.keygen import make_keys
    from edge_latup.bundle.keys import PRIVATE_NAME, PUBLIC_NAME, PUBLIC_PEM_NAME

    if no_passphrase and passphrase_file is not None:
        raise InputError("--no-passphrase and --passphrase-file exclude each other", "leave one out")
    remedy = "add --passphrase-file FILE, or --no-passphrase"
    passphrase = None if no_passphrase else the_passphrase(passphrase_file, twice=True, remedy=remedy)
    today = datetime.now(timezone.utc).date()
    public = make_keys(out, owner, passphrase, created=today, expires=expires.date() if expires else None)
    if no_passphrase:
        output.warning(f"{out / PRIVATE_NAME} is not encrypted: who reads it can sign in your name")
    output.line(f"key {public.key_id} of {public.owner}: {'no end' if public.expires is None else f'until {public.expires}'}")
    output.line(f"keep {out / PRIVATE_NAME} to yourself; give {out / PUBLIC_NAME} to the clinic by another way than the bundles")
    files = {"private": PRIVATE_NAME, "public": PUBLIC_NAME, "public_pem": PUBLIC_PEM_NAME}
    output.result({"key": public.model_dump(mode="json"), **{what: str(out / name) for what, name in files.items()}})


package.command()(build)


@package.command()
def installer(
    out: Annotated[Path | None, typer.Option(help="File to write; printed unless given. Nothing is overwritten.")] = None,
    standalone: Annotated[bool, typer.Option("--standalone", help="The shell script for bundles with their own Python instead.")] = False,
) -> None:
    """The installer on its own, for an IT department to keep beside the public key: one Python file that needs no package."""
    import hashlib

    from edge_latup.bundle.documents import installer as text_of_installer
    from edge_latup.bundle.standalone import INSTALL_SH
    from edge_latup.records import write_text

    text = INSTALL_SH if standalone else text_of_installer()
    if out is not None:
        if out.exists():
            raise InputError(f"{out} exists", "choose another --out")
        write_text(text, out)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    human = text.rstrip("\n") if out is None else f"{out}: SHA-256 {digest}"
    output.result({"path": None if out is None else str(out), "sha256": digest, **({"text": text} if out is None else {})}, human)
