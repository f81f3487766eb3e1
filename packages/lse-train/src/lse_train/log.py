"""The log of a run: metrics.csv and TensorBoard's events, which a resumed run continues."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any

from lse_core.atomic import replacing
from lse_train.config import ConfigError

__all__ = ["CSV", "EVENTS", "RunLog"]

CSV = "metrics.csv"
EVENTS = "tensorboard"


class RunLog:
    """Rows of numbers by step.

    A resumed run first drops the rows behind its checkpoint, so the file ends up as if nothing had
    happened.

    Args:
        folder: the run's folder.
        step: steps done; rows of later steps are dropped.

    Raises:
        ConfigError: the file of an earlier run is damaged.
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / CSV
        self.columns: list[str] = ["step"]
        self.rows: list[dict[str, str]] = []
        if step and self.path.is_file():
            self.rows = self._read(step)
            self._columns()
        self._rewrite()
        self.writer: Any = SummaryWriter(str(folder / EVENTS), purge_step=step + 1 if step else None)

    def _read(self, step: int) -> list[dict[str, str]]:
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            if any(None in row for row in rows):
                raise ValueError("a row has more numbers than there are columns")
            # a kill may have cut the last line
            kept = [row for row in rows if None not in row.values() and int(row["step"]) <= step]
        except (ValueError, csv.Error) as error:
            raise ConfigError(f"{self.path} is damaged: {error}; start over with --fresh") from error
        except KeyError as error:
            raise ConfigError(f"{self.path} has no column {error}; start over with --fresh") from error
        return [{k: v for k, v in row.items() if v} for row in kept]

    def add(self, step: int, values: dict[str, float]) -> None:
        """One row; a name not seen before becomes a new column."""
        row = {"step": str(step), **{name: f"{value:.9g}" for name, value in values.items()}}
        self.rows.append(row)
        if self._columns():
            self._rewrite()
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def _columns(self) -> bool:
        """Whether the rows brought new columns."""
        names = sorted({name for row in self.rows for name in row} - {"step"})
        changed = names != self.columns[1:]
        self.columns = ["step", *names]
        return changed

    def _rewrite(self) -> None:
        # not under a fixed name: in a folder of others it could be a link to somewhere else
        with (
            replacing(self.path, overwrite=True) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
