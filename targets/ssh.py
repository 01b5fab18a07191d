"""One SSH connection, used from ordinary code: the only module with coroutines, and the only one that knows asyncssh.

Keys come from the agent, the key file that was named, or the usual files. There is no password, no prompt and no way to skip the check
of the host's key. asyncssh was chosen over paramiko and fabric because one connection carries the heartbeat, an upload and a stream of
lines at once without a thread for each, and because it is typed; it is EPL-2.0 or GPL-2.0-or-later, a dependency of the extra `remote`
alone, and no part of it is in this package.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edge_latup.errors import InputError, MissingDependencyError, RemoteError, install_hint
from edge_latup.runtimes.base import installed
from edge_latup.targets.host_keys import HostKey, changed, known_files, unknown
from edge_latup.targets.remote_host import RemoteHost

if TYPE_CHECKING:
    import asyncssh

Result = TypeVar("Result")
CONNECT_SECONDS: Final = 20.0
KEEPALIVE_SECONDS: Final = 10.0
KEEPALIVES: Final = 3
"""Unanswered ones after which the connection counts as lost."""
CHUNK: Final = 1 << 16


class LinkLostError(RemoteError):
    """The connection ended before the answer came."""


class _TakerError(Exception):
    """Who took the output failed, such as on a full disk here: no fault of the connection."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a remote command ended, and what it wrote where nobody took it as it came."""

    code: int
    out: bytes
    err: str


class Link:
    """A connection to one host, made anew with `connect` when it was lost; a context manager."""

    def __init__(self, host: RemoteHost) -> None:
        if not installed("asyncssh"):
            raise MissingDependencyError("asyncssh is not installed", install_hint("remote"))
        self.host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"ssh-{host.name}", daemon=True)
        self._connection: asyncssh.SSHClientConnection | None = None
        self._beat: asyncio.Task[None] | None = None

    def __enter__(self) -> Link:
        self._thread.start()
        try:
            self.connect()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._wait(self._disconnect())
        self._stop()

    def connect(self) -> None:
        """Connect, or connect again.

        Raises:
            RemoteError: it cannot be reached, its key is unknown or another, or it refuses every key.
        """
        self._wait(self._disconnect())
        self._connection = self._wait(_connect(self.host))

    def run(self, command: str, payload: Iterable[bytes] = (), take: Callable[[bytes], None] | None = None) -> Reply:
        """Run a command of the remote shell and wait for its end.

        Args:
            command: quoted for a shell.
            payload: its stdin, read as it is sent.
            take: gets stdout as it comes, in pieces.

        Raises:
            LinkLostError: the connection ended first.
        """
        if self._connection is None:
            raise LinkLostError(f"there is no connection to {self.host.shown}")
        try:
            return self._wait(_run(self._connection, self.host, command, payload, take))
        except _TakerError as error:
            raise error.__cause__ or error from None

    def keep_saying(self, command: str, hello: bytes, every: float) -> Reply | None:
        """Start a command, and write to it every so many seconds until the connection ends; how it ended, if it did so at once.

        Raises:
            LinkLostError: the connection ended first.
        """
        if self._connection is None:
            raise LinkLostError(f"there is no connection to {self.host.shown}")
        begun = self._wait(_beat(self._connection, self.host, command, hello, every))
        if isinstance(begun, Reply):
            return begun
        self._beat = begun
        return None

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _disconnect(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._connection is not None:
            self._connection.abort()
            with suppress(Exception):
                await asyncio.wait_for(self._connection.wait_closed(), 5)
            self._connection = None

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._loop.is_running():
            self._loop.close()


async def _connect(host: RemoteHost) -> asyncssh.SSHClientConnection:
    import asyncssh

    files = known_files(host)
    known = asyncssh.read_known_hosts([str(path) for path in files if path.is_file()])
    shown: list[HostKey] = []

    class Client(asyncssh.SSHClient):
        """Notes the key that the known hosts do not have, and refuses it."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            trusted = known.match(host, addr, None if port == 22 else port)[0]
            line = key.export_public_key().decode().split()
            shown.append(HostKey(address=host, port=port, line=" ".join(line[:2]), fingerprint=key.get_fingerprint(), others=bool(trusted)))
            return False

    try:
        return await asyncssh.connect(host.address, client_factory=Client, known_hosts=known, **_options(host))
    except asyncssh.HostKeyNotVerifiable as error:
        if not shown:
            raise RemoteError(f"the host key of {host.shown} is refused: {error.reason}", "ask the keeper of that host") from error
        raise (changed if shown[0].others else unknown)(host, shown[0], files) from error
    except asyncssh.KeyExchangeFailed as error:
        raise RemoteError(
            f"no key exchange with {host.shown}: {error.reason}",
            "where it has a key of another kind than the one in known_hosts, treat it as a changed key: ask the keeper of that host",
        ) from error
    except asyncssh.PermissionDenied as error:
        raise RemoteError(f"{host.shown} refused every key that was offered", _key_hint(host)) from error
    except (OSError, asyncssh.Error, asyncio.TimeoutError) as error:
        told = str(error) or f"no answer within {CONNECT_SECONDS:.0f} s"
        raise LinkLostError(f"{host.shown} cannot be reached: {told}", "is it on, is sshd running, are address and port right?") from error


def _options(host: RemoteHost) -> dict[str, Any]:
    """How to connect: by keys alone; what was not given is left to ~/.ssh/config."""
    given: dict[str, Any] = {"port": host.port, "username": host.user, "client_keys": _identity(host)}
    return {name: value for name, value in given.items() if value is not None} | {
        "password_auth": False, "kbdint_auth": False, "host_based_auth": False, "gss_auth": False, "ignore_encrypted": True,
        "preferred_auth": "publickey", "connect_timeout": CONNECT_SECONDS, "login_timeout": CONNECT_SECONDS,
        "keepalive_interval": KEEPALIVE_SECONDS, "keepalive_count_max": KEEPALIVES, "x11_forwarding": False, "agent_forwarding": False,
    }  # fmt: skip


def _identity(host: RemoteHost) -> list[str] | None:
    """The key file that was named, if it can be used.

    Raises:
        InputError: it is missing, is no key, or needs a passphrase and no agent is there to hold it.
    """
    import asyncssh

    if host.identity is None:
        return None
    path = host.identity.expanduser()
    try:
        asyncssh.read_private_key(path)
    except OSError as error:
        raise InputError(f"the key file {path} cannot be read: {error.strerror}", "name a private key with --identity") from error
    except asyncssh.KeyEncryptionError as error:
        raise InputError(f"the key file {path} cannot be decrypted", "add it to the agent: ssh-add, then leave --identity out") from error
    except asyncssh.KeyImportError as error:
        if "passphrase" in str(error).lower():
            if os.environ.get("SSH_AUTH_SOCK"):
                return [str(path)]
            raise InputError(f"the key file {path} needs a passphrase, which is never asked for", f"ssh-add {path}") from error
        raise InputError(f"{path} is not a private key", "name a private key with --identity, not its .pub file") from error
    return [str(path)]


def _key_hint(host: RemoteHost) -> str:
    named = f"{host.identity}.pub" if host.identity else "~/.ssh/id_ed25519.pub"
    return f"put your public key there (ssh-copy-id -i {named} {host.shown}), or name another with --identity; passwords are not used"


async def _run(
    connection: asyncssh.SSHClientConnection, host: RemoteHost, command: str, payload: Iterable[bytes], take: Callable[[bytes], None] | None
) -> Reply:
    import asyncssh

    out: list[bytes] = []
    try:
        process = await connection.create_process(command, encoding=None)
        _, _, err = await asyncio.gather(_feed(process, payload), _take(process.stdout, take or out.append), process.stderr.read())
        await process.wait_closed()
    except (OSError, asyncssh.Error) as error:
        raise LinkLostError(f"the connection to {host.shown} was lost: {error}") from error
    if process.returncode is None or process.returncode == -1:
        raise LinkLostError(f"the connection to {host.shown} was lost")
    return Reply(code=process.returncode, out=b"".join(out), err=bytes(err).decode(errors="replace"))


async def _feed(process: asyncssh.SSHClientProcess[bytes], payload: Iterable[bytes]) -> None:
    """Send stdin; a command that ends before it has read everything tells why by itself."""
    import asyncssh

    with suppress(BrokenPipeError, ConnectionResetError, asyncssh.Error):
        for piece in payload:
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.write_eof()


async def _take(stream: asyncssh.SSHReader[bytes], take: Callable[[bytes], None]) -> None:
    while piece := await stream.read(CHUNK):
        try:
            take(piece)
        except OSError as error:
            raise _TakerError from error


async def _beat(
    connection: asyncssh.SSHClientConnection, host: RemoteHost, command: str, hello: bytes, every: float
) -> asyncio.Task[None] | Reply:  # fmt: skip
    """Start the command, wait for its first word, then go on writing in the background."""
    import asyncssh

    try:
        process = await connection.create_process(command, encoding=None)
        process.stdin.write(hello)
        first = await process.stdout.readline()
    except (OSError, asyncssh.Error) as error:
        raise LinkLostError(f"the connection to {host.shown} was lost: {error}") from error
    if not first:
        told = bytes(await process.stderr.read()).decode(errors="replace")
        await process.wait_closed()
        if process.returncode is None or process.returncode == -1:
            raise LinkLostError(f"the connection to {host.shown} was lost")
        return Reply(code=process.returncode, out=b"", err=told)

    async def go_on() -> None:
        with suppress(OSError, asyncssh.Error):
            while not process.stdin.is_closing():
                process.stdin.write(b"\n")
                await process.stdin.drain()
                await asyncio.sleep(every)

    return asyncio.get_running_loop().create_task(go_on())


def python_call(python: str, source: str, arguments: Sequence[str]) -> tuple[str, bytes]:
    """A shell command that has a remote Python execute `source`, and the beginning of its stdin."""
    text = source.encode()
    boot = "import sys;s=sys.stdin.buffer;exec(compile(s.read(int(sys.argv.pop(1))),'edge-latup','exec'))"
    # "~" means nothing inside quotes.
    program = f'"$HOME"/{shlex.quote(python[2:])}' if python.startswith("~/") else shlex.quote(python)
    return f"{program} {shlex.join(['-I', '-c', boot, str(len(text)), *arguments])}", text
