"""Progress of long work on stderr: bars on a terminal, at most a line for each tenth elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Bar", "Bars"]


class Bar:
    """One piece of work, made by `Bars.add`."""

    def __init__(self, bars: Bars, task: TaskID, text: str, total: int | None, lines: bool) -> None:
        self._bars, self._task, self._lines = bars, task, lines
        self.text, self.total, self.done = text, total, 0

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        """Set the number of finished units and, where given, the total and the text."""
        before, self.done = self.done, done
        self.total = total or self.total
        self.text = self.text if text is None else text
        self._bars.show(self._task, done, self.total, self.text)
        if self._lines and self.total and done * 10 // self.total > before * 10 // self.total:
            self._bars.line(f"{self.text}: {done} of {self.total}")

    def advance(self, units: int = 1) -> None:
        """Add `units` to the number of finished units."""
        self.update(self.done + units)

    def restart(self, text: str) -> None:
        """Reuse this bar for another piece of work."""
        self.text, self.total, self.done = text, None, 0
        self._bars.show(self._task, 0, None, text)


class Bars:
    """Bars on stderr, so that stdout stays readable by scripts; a context manager.

    They appear with the first unit of work, not above the error of a command that is refused, and are gone
    at the end. Where stderr is no terminal nothing is drawn.

    Args:
        hidden: draw and print nothing at all, as all processes but the first of a distributed run do.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self.console = Console(stderr=True, quiet=hidden)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        drawn = self.console.is_terminal and not hidden
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not drawn)

    def add(self, text: str, total: int | None = None, *, lines: bool = False) -> Bar:
        """Add a bar below the others.

        Args:
            text: what is done, put before the bar.
            total: units of work; None where `Bar.update` is to tell.
            lines: where no bar can be drawn, print a line for each tenth of the work.
        """
        return Bar(self, self._progress.add_task(text, total=total), text, total, lines)

    def show(self, task: TaskID, done: int, total: int | None, text: str) -> None:
        """Draw the state of a bar; `Bar` calls this."""
        self._progress.start()
        self._progress.update(task, completed=done, total=total, description=text)

    def line(self, text: str) -> None:
        """Print a line where no bars are drawn."""
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
