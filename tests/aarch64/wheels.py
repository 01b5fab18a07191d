"""Fetch the clinic's wheels for aarch64, as bundles bring them, and lock them in requirements.txt: all but edge-latup's own.

python tests/aarch64/wheels.py --python 3.11 --out FOLDER dist/edge_latup-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from edge_latup.bundle.build import EXTRAS
from edge_latup.bundle.platforms import PLATFORMS, PYTHONS, WheelPlatform
from edge_latup.bundle.wheelhouse import OWN, lock_text, resolve

ARM: Final[WheelPlatform] = PLATFORMS["linux-aarch64"]


def main() -> None:
    """Fill a folder, and say what lies in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="edge-latup's own")
    parser.add_argument("--python", required=True, choices=PYTHONS)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    locked = [one for one in resolve(asked.wheel, EXTRAS["onnxruntime"], ARM, asked.python, asked.out) if one.name != OWN]
    (asked.out / "requirements.txt").write_text(lock_text(locked), encoding="utf-8")
    megabytes = sum((asked.out / one.file).stat().st_size for one in locked) / 1e6
    sys.stdout.write(f"{asked.out}: {len(locked)} wheels for Python {asked.python} on {ARM.name}, {megabytes:.0f} MB\n")


if __name__ == "__main__":
    main()
