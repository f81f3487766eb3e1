"""Options that `lse measure` and `lse play` share: where objects are, and how pictures are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["FILE", "Levels", "masks", "preparation"]

FILE = click.Path(dir_okay=False, path_type=Path)
F = TypeVar("F")

masks = click.option(
    "--masks",
    default="beside",
    show_default=True,
    metavar="WHERE",
    help="Where objects are: beside (NAME.mask.png, NAME.xml or boxes.json beside NAME.jpg), a folder "
    "of such files, a JSON file of COCO's format, or none.",
)


def preparation(command: F) -> F:
    """The options --size, --mean, --std and --class-names, in this order."""
    made: Any = command
    for option in (
        click.option("--class-names", type=FILE, help="Text file with the name of one class on each line."),
        click.option(
            "--std",
            type=float,
            multiple=True,
            help="Standard deviation of pixels in [0, 1], likewise; once, or for each channel.",
        ),
        click.option(
            "--mean",
            type=float,
            multiple=True,
            help="Mean of pixels in [0, 1], likewise; once, or for each channel.",
        ),
        click.option(
            "--size",
            nargs=2,
            type=click.IntRange(8),
            metavar="HEIGHT WIDTH",
            help="Pixels of a picture, for models that do not say how pictures are prepared.",
        ),
    ):
        made = option(made)
    return made  # type: ignore[no-any-return]


class Levels(click.ParamType):
    """Numbers such as "0.5,0.7,1", or "LOW:HIGH:COUNT" for numbers at equal distances."""

    name = "levels"

    def __init__(self, *, geometric: bool = False) -> None:
        self.geometric = geometric

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Read the text."""
        from lse_measure.sweeps import steps

        try:
            if ":" in value:
                low, high, count = value.split(":")
                if self.geometric and not 0 < float(low) <= float(high):
                    raise ValueError(value)
                if not 1 <= int(count) <= 1000:
                    raise ValueError(value)
                return steps(float(low), float(high), int(count), geometric=self.geometric)
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is neither a list (0.5,0.7,1) nor LOW:HIGH:COUNT (0.5:2:13)", param, ctx)
