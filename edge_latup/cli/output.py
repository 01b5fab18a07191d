"""The one place that prints. stdout carries the result, stderr the progress and the errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edge_latup.errors import EdgeLatupError

Item = TypeVar("Item")
WIDEST: Final = 10_000
"""Columns; what a table would take is measured without regard to the terminal."""


class Mode(str, Enum):
    """How results are shown."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


@dataclass
class Output:
    """Set once by the application's options, used by every command."""

    mode: Mode = Mode.HUMAN

    def __post_init__(self) -> None:
        # Names of files and cases are shown as they are: no [markup], no :emoji:.
        self.stdout = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.stderr = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def line(self, text: str) -> None:
        """A line of the human result; silent in the other modes."""
        if self.mode is Mode.HUMAN:
            self.stdout.print(text)

    def result(self, value: Any, human: str = "") -> None:
        """The command's result: `value` as JSON in JSON mode, `human` otherwise."""
        if self.mode is Mode.JSON:
            self.stdout.print_json(json.dumps(value)) if sys.stdout.isatty() else self.stdout.print(json.dumps(value))
        elif human:
            self.line(human)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
        """A table on stdout; the first `left` columns are left-aligned, the others right-aligned."""
        if self.mode is not Mode.HUMAN:
            return
        table = Table(title=Text(title), title_justify="left", header_style="bold")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index < left else "right", overflow="fold", no_wrap=index == 0)
        for row in rows:
            table.add_row(*row)
        least = Measurement.get(self.stdout, self.stdout.options.update(max_width=WIDEST), table).minimum
        if self.stdout.is_terminal and least > self.stdout.width:
            self._blocks(title, columns, table)
        elif self.stdout.is_terminal:
            self.stdout.print(table)
        else:  # a pipe has no width of its own; 80 columns would break every row
            Console(width=max(160, least), highlight=False, markup=False, emoji=False).print(table)

    def _blocks(self, title: str, columns: Sequence[str], table: Table) -> None:
        """Rows one below another, where the terminal is too narrow for them side by side: a number broken in two is read wrongly."""
        self.stdout.print(title)
        names = [column.replace("\n", " ") for column in columns]
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            self.stdout.print("\n".join(f"{'- ' if index == 0 else '  '}{names[index]}: {cell}" for index, cell in enumerate(cells)))

    def note(self, text: str) -> None:
        """A line of progress on stderr."""
        if self.mode is not Mode.QUIET:
            self.stderr.print(text, style="dim")

    def warning(self, text: str) -> None:
        """Something the user must not miss, on stderr, in every mode."""
        self.stderr.print(f"warning: {text}", style="yellow")

    def error(self, error: EdgeLatupError) -> None:
        """What is wrong and what to do next, on stderr."""
        self.stderr.print(f"error: {error.message}", style="bold red")
        if error.hint:
            self.stderr.print(f"hint: {error.hint}")

    @contextmanager
    def progress(self, title: str, total: int | None) -> Iterator[Ticker]:
        """A progress bar on a terminal; elsewhere a plain line at most every ten seconds."""
        if self.mode is Mode.QUIET or not self.stderr.is_terminal:
            yield Ticker(self, title, total)
            return
        title_column, detail_column = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[detail]}"))
        columns = (title_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), detail_column)
        with Progress(*columns, console=self.stderr, transient=True) as bar:
            yield BarTicker(bar, title, total)


class Ticker:
    """Progress without a terminal."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, output: Output, title: str, total: int | None) -> None:
        self._output, self._title, self._total = output, title, total
        self._last = time.monotonic()

    def update(self, done: int, detail: str = "") -> None:
        """Report `done` steps of the total."""
        now = time.monotonic()
        if now - self._last >= self.SECONDS_BETWEEN_LINES or done == self._total:
            self._last = now
            total = "" if self._total is None else f"/{self._total}"
            self._output.note(f"{self._title} {done}{total} {detail}".rstrip())


class BarTicker(Ticker):
    """Progress as a rich bar."""

    def __init__(self, bar: Progress, title: str, total: int | None) -> None:
        self._bar, self._task = bar, bar.add_task(title, total=total, detail="")

    def update(self, done: int, detail: str = "") -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, detail=detail)


output = Output()


def configure(mode: Mode) -> None:
    """Set the mode once, before a command runs."""
    output.mode = mode
