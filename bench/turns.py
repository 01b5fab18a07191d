"""Rows timed in turns: every engine in a process of its own, all loaded, one run of each in a round.

The speed of a shared host, or of a clock that falls, changes within a minute. Rows that are timed one after the other then meet different
machines, and their ratio is that of the machines. In turns each round meets one, and the ratio within it is that of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

from edge_latup.bench.isolate import Worker, started_worker
from edge_latup.bench.worker import READY, Job

Tell = Callable[[str, str], None]


def run_in_turns(
    jobs: Sequence[tuple[str, Job, Path]], rounds: int, tell: Tell, environment: Mapping[str, str] | None = None
) -> None:  # fmt: skip
    """Load and warm up one after the other, then run each job once a round; every second round has the reverse order.

    Args:
        jobs: name, a job with `in_turns`, and the path of its row, which is written after the last round.
        rounds: how many.
        tell: gets a name and a line; the name is empty where a line is about all.
        environment: see `started_worker`.

    Raises:
        EdgeLatupError: a worker failed; the others are ended and no row of this call counts.
    """
    with ExitStack() as running:
        workers: list[tuple[str, Worker]] = []
        for name, job, row in jobs:
            workers.append((name, running.enter_context(started_worker(job, row, environment))))
            _until_ready(*workers[-1], tell)
        for index in range(rounds):
            tell("", f"round {index + 1} of {rounds}")
            for name, worker in workers if index % 2 == 0 else reversed(workers):
                worker.ask()
                _until_ready(name, worker, tell)
        for name, worker in workers:
            worker.dismiss()
            for line in worker.lines():
                tell(name, line)


def _until_ready(name: str, worker: Worker, tell: Tell) -> None:
    for line in takewhile(lambda line: line != READY, worker.lines()):
        tell(name, line)
