"""What a remote host is asked before its first row; the rows themselves are made by `worker`. Runs on that host, from the runner."""

from __future__ import annotations

import json
from pathlib import Path

from edge_latup.records import Record, write_record
from edge_latup.targets.host import Host, describe_host
from edge_latup.versions import versions_of


class Described(Record):
    """What a host is, and what is installed there."""

    host: Host
    versions: dict[str, str]


def main(arguments: list[str]) -> int:
    """Entry point: the file to write, and a JSON list of packages."""
    write_record(Described(host=describe_host(), versions=versions_of(*json.loads(arguments[1]))), Path(arguments[0]))
    return 0
