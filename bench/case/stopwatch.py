"""Runs one command and writes its seconds and its peak memory: a program of its own, of the standard library alone.

The kernel counts the memory a process had when it was forked towards what it runs next, so the parent must be small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main(arguments: list[str]) -> int:
    """Write {"seconds", "peak_rss_bytes"} of the command arguments[1:] into the file arguments[0]; its exit code is ours."""
    began = time.perf_counter()
    process = subprocess.Popen(arguments[1:])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    # Told, or Popen would wait for a process that is no more.
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(arguments[0], "w", encoding="utf-8") as file:  # noqa: PTH123  (pathlib would double what is imported)
        json.dump({"seconds": seconds, "peak_rss_bytes": usage.ru_maxrss * RSS_UNIT}, file)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
