"""A real sshd on loopback, with keys of its own, as this user, and ways to see what a run leaves behind."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIG: Final = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
SetEnv HOME={folder}/home
MaxStartups 100
LogLevel VERBOSE
"""


@dataclass
class Sshd:
    """A running server. user_key: a private key it lets in; host_key: its public key's line without a name."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def user_key(self) -> Path:
        return self.folder / "user_key"

    @property
    def home(self) -> Path:
        """Home of those who come in."""
        return self.folder / "home"

    @property
    def known_hosts(self) -> Path:
        """A file that knows this server's key."""
        return self.folder / "known_hosts"

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    def stop(self) -> None:
        """The listener, and every connection it holds."""
        self.cut()
        self.process.kill()
        self.process.wait()

    def cut(self) -> int:
        """Kill the processes that serve connections, as a pulled cable would end them; how many there were."""
        children = _descendants(self.process.pid)
        served = [pid for pid in children if b"sshd" in _read(pid, "cmdline").split(b"\0")[0]]
        for pid in served:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(served)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def start_sshd(folder: Path) -> Sshd:
    """Start one; skips where there is none installed."""
    if SSHD is None:
        pytest.skip("no sshd: apt-get install openssh-server")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    if not (folder / "host_key").exists():
        make_key(folder / "host_key")
        make_key(folder / "user_key")
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = _free_port()
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    # Where sshd runs as root it wants this folder, which Debian's unit file makes.
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen([SSHD, "-D", "-f", str(folder / "config"), "-E", str(folder / "log")], stdin=subprocess.DEVNULL)
    server = Sshd(folder=folder, port=port, process=process)
    wait_for(lambda: _listens(port) or process.poll() is not None)
    if process.poll() is not None:
        pytest.fail(f"sshd did not start: {server.log()}")
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    server.known_hosts.write_text(f"[127.0.0.1]:{port} {key}\n")
    return server


def make_key(path: Path, passphrase: str = "") -> Path:
    """A new Ed25519 key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path), "-C", "test"], check=True)
    return path


def marked(run_marker: str = "EDGE_LATUP_RUN=") -> list[int]:
    """Processes that a remote run started, by the mark in their environment; supervisors, which have none, by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            pid = int(entry.name)
            if _read(pid, "stat").rpartition(b")")[2].split()[:1] == [b"Z"]:
                continue
            if run_marker.encode() in _read(pid, "environ") or b"'edge-latup','exec'" in _read(pid, "cmdline"):
                found.append(pid)
    return found


def wait_until_gone(seconds: float = 10.0) -> list[int]:
    """Processes of remote runs that are still there after so long."""
    wait_for(lambda: not marked(), seconds)
    return marked()


def wait_for(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds, or so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not holds():
        time.sleep(0.05)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def parent(pid: int) -> int:
    """The process that started this one, or took it over."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _descendants(pid: int) -> list[int]:
    parents = {int(entry.name): parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Sshd]:
    """`start_sshd`, stopped at the end."""
    server = start_sshd(folder)
    try:
        yield server
    finally:
        server.stop()
