"""Run where NVIDIA's bindings import: writes what they hold as type stubs, read off the genuine modules. `typed_bindings.py FOLDER`."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

from mypy import stubgen

MODULES = {"tensorrt.tensorrt": "tensorrt/__init__.pyi", "cuda.bindings.runtime": "cuda/bindings/runtime.pyi"}
HEAD = "import typing, typing_extensions\nfrom typing import Any\nbuffer = typing_extensions.Buffer\n"
CYTHON = re.compile(r"^(\w+): _cython\w*\.\w+$", re.MULTILINE)


def write_stubs(folder: Path) -> None:
    """One stub file a module, and what its packages need."""
    for module, place in MODULES.items():
        stubgen.main(["--quiet", "--inspect-mode", "-m", module, "-o", str(folder / "raw")])
        raw = (folder / "raw" / Path(*module.split(".")).with_suffix(".pyi")).read_text(encoding="utf-8")
        path = folder / "stubs" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + parsable(with_signatures(raw, module)) + "\n__version__: str\n", encoding="utf-8")
    for package in ("cuda", "cuda/bindings"):
        (folder / "stubs" / package / "__init__.pyi").write_text("", encoding="utf-8")


def with_signatures(text: str, module: str) -> str:
    """Cython functions as functions: their arguments' names and number are known, their types are not."""
    real = importlib.import_module(module)

    def signature(match: re.Match[str]) -> str:
        names = list(inspect.signature(getattr(real, match[1])).parameters)
        return f"def {match[1]}({', '.join(f'{name}: Any' for name in names)}) -> Any: ..."

    return CYTHON.sub(signature, text)


def parsable(text: str) -> str:
    """pybind11 lets an argument without a default follow one with; Python does not, so such a function takes anything."""
    while True:
        try:
            ast.parse(HEAD + text)
        except SyntaxError as error:
            lines = text.splitlines()
            place = (error.lineno or 0) - HEAD.count("\n") - 1
            changed = re.sub(r"def (\w+)\(.*$", r"def \1(self, *args: Any, **kwargs: Any) -> Any: ...", lines[place])
            if changed == lines[place]:
                raise
            lines[place] = changed
            text = "\n".join(lines)
        else:
            return text


if __name__ == "__main__":
    write_stubs(Path(sys.argv[1]))
