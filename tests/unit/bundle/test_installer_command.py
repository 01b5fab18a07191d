"""`edge-latup package installer` gives the very file that bundles bring, and it runs where only Python is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from command import Command

from edge_latup.bundle import install
from edge_latup.bundle.standalone import INSTALL_SH

SOURCE = Path(str(install.__file__)).read_bytes()


def test_it_is_written_as_bundles_bring_it_and_runs_alone(cli: Command, tmp_path: Path) -> None:
    done = cli("--json", "package", "installer", "--out", tmp_path / "install.py")
    assert (tmp_path / "install.py").read_bytes() == SOURCE
    assert done.data["sha256"] == hashlib.sha256(SOURCE).hexdigest()
    alone = subprocess.run([sys.executable, "-I", "-S", tmp_path / "install.py"], capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert alone.stderr.startswith("error: no public key is given")


def test_it_is_printed_as_it_is(cli: Command) -> None:
    assert cli("package", "installer").out.encode() == SOURCE


def test_the_shell_script_is_written_too(cli: Command, tmp_path: Path) -> None:
    assert cli("package", "installer", "--standalone", "--out", tmp_path / "install.sh").code == 0
    assert (tmp_path / "install.sh").read_text(encoding="utf-8") == INSTALL_SH


def test_nothing_is_overwritten(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "install.py").write_text("mine", encoding="ascii")
    done = cli("package", "installer", "--out", tmp_path / "install.py")
    assert done.code == 2
    assert (tmp_path / "install.py").read_text(encoding="ascii") == "mine"
