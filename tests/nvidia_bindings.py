"""NVIDIA's genuine Python bindings without a GPU: wheels fetched once, tiny libraries in place of the ones they load.

The wheels hold the Python modules only. Three libraries with nine C functions that return nothing let them import, so that every class,
member and signature can be looked at; a builder or a runtime cannot be made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

REQUIREMENTS: Final = Path(__file__).with_name("tensorrt-bindings.txt")
CACHE: Final = "nvidia-bindings"
LIBRARIES: Final = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
STUB: Final = """
void *createInferBuilder_INTERNAL(void *logger, int version) { return 0; }
void *createInferRuntime_INTERNAL(void *logger, int version) { return 0; }
void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) { return 0; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return 0; }
void *getPluginRegistry(void) { return 0; }
void *getBuilderPluginRegistry(int capability) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *name) { return 1; }
"""


@dataclass(frozen=True)
class Generation:
    """One TensorRT and the cuda-python beside it. `folder`: on the path of what imports them."""

    version: str
    folder: Path
    libraries: Path

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run code where `import tensorrt` and `from cuda.bindings import runtime` are NVIDIA's own."""
        places = [str(self.folder), *(place for place in sys.path if place)]
        environment = os.environ | {"LD_LIBRARY_PATH": str(self.libraries), "PYTHONPATH": os.pathsep.join(places)}
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, cwd=self.folder, check=False, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip

    def ask(self, code: str, *arguments: str) -> Any:
        """What the code prints, as JSON."""
        done = self.python(code, *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


def pinned() -> dict[str, tuple[str, ...]]:
    """TensorRT version -> the requirements of its generation, from the test-only requirements file."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    groups: dict[str, list[str]] = {}
    for line in filter(None, lines):
        if line.startswith("tensorrt"):
            current = groups.setdefault(line.partition("==")[2], [])
        current.append(line)
    return {version: tuple(wanted) for version, wanted in groups.items()}


def cache_folder() -> Path:
    """Beside the interpreter's environment, so that `make clean` takes it along."""
    return Path(os.environ.get("EDGE_LATUP_NVIDIA_BINDINGS") or Path(sys.prefix) / CACHE)


def fetched(version: str) -> Generation:
    """A generation, downloaded where it is not there yet; skips, saying why, where it cannot be had."""
    folder, wanted = cache_folder() / version, pinned()[version]
    stamp = folder / "complete"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != "\n".join(wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _download(folder, wanted)
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    return Generation(version=version, folder=folder, libraries=_stubs(folder, version))


def _download(folder: Path, wanted: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--target", str(folder), *wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        words = done.stderr.strip().splitlines()
        pytest.skip(f"NVIDIA's bindings cannot be downloaded (make tensorrt-bindings): {words[-1] if words else 'pip failed'}")
    # As JetPack's own package lays it out: the module is called tensorrt.
    (folder / "tensorrt").symlink_to("tensorrt_bindings")


def _stubs(folder: Path, version: str) -> Path:
    libraries = folder / "stubs"
    if not libraries.is_dir():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler: the stand-ins for TensorRT's libraries cannot be made")
        libraries.mkdir()
        (libraries / "stub.c").write_text(STUB, encoding="ascii")
        for name in LIBRARIES:
            library = f"lib{name}.so.{version.partition('.')[0]}"
            subprocess.run([compiler, "-shared", "-fPIC", "-o", library, f"-Wl,-soname,{library}", "stub.c"], cwd=libraries, check=True)
    return libraries


if __name__ == "__main__":
    for each in pinned():
        sys.stdout.write(f"TensorRT {each}: {fetched(each).folder}\n")
