"""The arm64 Debian that root.sh made, as tests use it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from edge_latup.cli import app
from edge_latup.cli.output import Mode, configure

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "root.sh"
FOLDER = Path(os.environ.get("EDGE_LATUP_AARCH64") or HERE.parents[1] / ".venv" / "aarch64").resolve()
ENVIRONMENT = {**os.environ, "AARCH64": str(FOLDER)}
LONGEST = 900
"""Seconds after which a command in the root hangs."""
CANNOT = 3
"""Exit code of the script where no root is, or can be entered."""


class Arm:
    """The arm64 root, and a folder in it that is `share` here and `inside` there."""

    def __init__(self, share: Path) -> None:
        self.share = share
        self.inside = Path("/") / share.relative_to(FOLDER / "root")

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the root."""
        words = [SCRIPT, "run", *map(str, command)]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=LONGEST)

    def told(self, *arguments: object) -> tuple[Any, str]:
        """What an edge-latup command, which must succeed, prints as JSON, and on stderr."""
        done = self.run("edge-latup", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr


def here(*arguments: object) -> Result:
    """A command in this process; it must succeed."""
    result = CliRunner().invoke(app, ["--json", *map(str, arguments)])
    configure(Mode.HUMAN)
    assert result.exit_code == 0, result.stderr
    return result
