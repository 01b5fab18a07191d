"""Hosts that are reached over SSH: one as typed on the command line, several in a fleet file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints, ValidationError

from edge_latup.errors import InputError, SpecError
from edge_latup.records import Record, summary_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ADDRESS: Final = re.compile(r"(?:(?P<user>[^@:\s/]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>\d{1,5}))?")
PYTHON: Final = "python3"
CACHE: Final = "~/.cache/edge-latup"
Word = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\s-][^\s]*$")]
"""Neither empty nor with spaces, nor an option in disguise."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class RemoteHost(Record):
    """One host, and how to reach it. It holds no password, and there is no field for one."""

    name: Name
    """What its rows are called by."""
    address: Word
    """Name or IP address, or an alias from ~/.ssh/config."""
    user: Word | None = None
    """None leaves it to ~/.ssh/config, else the local user's name."""
    port: int | None = Field(None, ge=1, le=65535)
    """None leaves it to ~/.ssh/config, else 22."""
    identity: Path | None = None
    """Private key file; None leaves it to the agent, ~/.ssh/config and the usual names."""
    known_hosts: Path | None = None
    """None stands for ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts."""
    python: Word = PYTHON
    """The interpreter there: a command or a path."""
    cache: Word = CACHE
    """Folder there for what was brought; "~" is the user's home there."""
    wheels: Path | None = None
    """Local folder of wheels to bring for what that Python lacks."""

    @property
    def shown(self) -> str:
        """user@address:port, as far as they were given."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{self.address}{port}"


class Fleet(Record):
    """fleet.toml: hosts that are benched side by side."""

    host: tuple[RemoteHost, ...] = Field(min_length=1)


def parse_host(text: str) -> RemoteHost:
    """A host of "user@board:port", in which user and port may be left out; IPv6 addresses stand in brackets.

    Raises:
        InputError: it is not of that form, or holds a password.
    """
    found = ADDRESS.fullmatch(text)
    if found is None:
        # A password before the @ must not be repeated in a message.
        secret = "@" in text and ":" in text.rpartition("@")[0]
        message = "--host holds a colon before the @" if secret else f"--host {text!r} is not user@board or user@board:port"
        raise InputError(message, "name user, host and port only: keys come from the SSH agent or --identity, never a password")
    address = found["host"].strip("[]")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise InputError(f"--host {text!r}: {port} is not a port", "ports are numbers from 1 to 65535")
    return RemoteHost(name=address.replace(":", "-").lstrip("-"), address=address, user=found["user"], port=port)


def load_fleet(path: Path) -> Fleet:
    """The hosts of a fleet file; relative paths in it start from its folder.

    Raises:
        SpecError: missing, not TOML, not a valid fleet, or two hosts of one name; the message names file and key.
    """
    try:
        fleet = Fleet.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "give the path of a fleet file, such as fleet.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}", "correct the file") from error
    except ValidationError as error:
        raise SpecError(f"{path} is not a valid fleet: {summary_of(error)}", "see docs/remote-hosts.md for its form") from error
    names = [host.name for host in fleet.host]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"{path} names two hosts {', '.join(doubles)}", "rows are known by their host's name: rename one")
    return Fleet(host=tuple(_anchored(host, path.parent) for host in fleet.host))


def _anchored(host: RemoteHost, folder: Path) -> RemoteHost:
    """The host with its local paths made absolute."""
    found = {name: getattr(host, name) for name in ("identity", "known_hosts", "wheels")}
    return host.model_copy(update={name: folder / path.expanduser() for name, path in found.items() if path is not None})
