"""Host keys: which files hold the trusted ones, and what to say of a key that is not among them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.errors import RemoteError
from edge_latup.targets.remote_host import RemoteHost

SYSTEM_FILE: Final = Path("/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """A public key that a host showed. line: kind and key, as known_hosts has them. others: whether another key is known for it."""

    address: str
    port: int
    line: str
    fingerprint: str
    others: bool

    @property
    def entry(self) -> str:
        """How known_hosts names the host."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


def known_files(host: RemoteHost) -> list[Path]:
    """The files that hold trusted keys; new ones are added to the first."""
    if host.known_hosts is not None:
        return [host.known_hosts.expanduser()]
    return [Path("~/.ssh/known_hosts").expanduser(), SYSTEM_FILE]


def unknown(host: RemoteHost, key: HostKey, files: list[Path]) -> RemoteError:
    """The refusal of a host that no trusted key is known of."""
    add = f"echo {shlex.quote(f'{key.entry} {key.line}')} >> {shlex.quote(str(files[0]))}"
    kind = key.line.split()[0].removeprefix("ssh-").split("-")[0]
    return RemoteError(
        f"the host key of {host.shown} is not known: {key.fingerprint}",
        f"compare it, on that machine itself, with: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub\nif they are the same: {add}",
    )


def changed(host: RemoteHost, key: HostKey, files: list[Path]) -> RemoteError:
    """The refusal of a host whose key is another than the known one."""
    forget = f"ssh-keygen -R {shlex.quote(key.entry)} -f {shlex.quote(str(files[0]))}"
    return RemoteError(
        f"the host key of {host.shown} has changed: it is {key.fingerprint}, and {files[0]} holds another",
        f"somebody may be in between. Only where you know why it changed (a new system on that board): {forget}; then compare the new one",
    )
