"""The core is light: importing it, and asking for help, loads none of the heavy packages."""

from __future__ import annotations

import importlib.metadata
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HELP_SECONDS = 0.5
HELP_RUNS = 8
IMPORT_CORE = Path(__file__).parent / "import_core.py"
HELP = """
import runpy, sys
heavy = {*runpy.run_path(sys.argv.pop(1))["HEAVY"], "scipy", "nibabel", "numpy", "pydantic"}
sys.argv[:] = ["edge-latup", "--help"]
from edge_latup.cli import main
try:
    main()
except SystemExit:
    print("LOADED", *sorted(heavy & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def edge_latup() -> Path:
    return Path(sys.executable).parent / "edge-latup"


def test_importing_the_core_loads_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, IMPORT_CORE], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"edge_latup.cli", "edge_latup.cases.read", "edge_latup.runtimes.base", "edge_latup.bundle.verify"} <= set(report["modules"])
    assert report["heavy"] == []


VERIFY = """
import json, sys
before = set(sys.modules)
import edge_latup.bundle.unpack, edge_latup.bundle.keys
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
ours = sorted(name for name in sys.modules if name.startswith("edge_latup.") and name.count(".") == 1)
print(json.dumps([sorted(name for name in loaded if not name.startswith("_sysconfigdata")), ours]))
"""


def test_verifying_a_bundle_needs_next_to_nothing(tmp_path: Path) -> None:
    """It runs before anything of a bundle is trusted: pydantic and what that needs; cryptography and zstd when they are called."""
    done = subprocess.run([sys.executable, "-c", VERIFY], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded, ours = json.loads(done.stdout)
    assert set(loaded) <= {"edge_latup", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert set(ours) <= {f"edge_latup.{name}" for name in ("bundle", "errors", "manifest", "network_specs", "records", "spec")}


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, IMPORT_CORE], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


def test_help_is_quick(edge_latup: Path, tmp_path: Path) -> None:
    seconds = []
    for _ in range(HELP_RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([edge_latup, "--help"], check=True, stdout=subprocess.DEVNULL, cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: what else the machine does meanwhile is not counted.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # The least: a cold disk cache and a neighbour on the same core only ever add.
    assert min(seconds) < HELP_SECONDS, seconds


def test_the_version_is_that_of_the_installed_package(edge_latup: Path, tmp_path: Path) -> None:
    said = subprocess.run([edge_latup, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said == f"edge-latup {importlib.metadata.version('edge-latup')}\n"


def test_installed_commands_explain_themselves(edge_latup: Path, tmp_path: Path) -> None:
    """Three of them; that every one does is tested in one process, by the tests of the README."""
    for words in (["phantom"], ["bench-case"], ["package", "build"]):
        done = subprocess.run([edge_latup, *words, "--help"], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, words[-1] in done.stdout) == (0, True), f"{words}: {done.stderr}"
