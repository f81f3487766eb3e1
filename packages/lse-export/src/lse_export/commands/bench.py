"""`lse bench`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_export.commands.common import (
    json_option,
    print_table,
    size_option,
    tensorrt_options,
    trust_option,
    working,
)

if TYPE_CHECKING:
    from torch import nn


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--ways",
    multiple=True,
    metavar="NAME",
    default=("eager", "ort-cpu"),
    show_default=True,
    help="eager, compiled, ort-cpu, ort-cuda, ort-tensorrt or tensorrt; repeat for several.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a call.")
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True, help="Measurements of each.")
@click.option("--device", default="cpu", show_default=True, help="Device of eager and compiled.")
@size_option
@trust_option
@tensorrt_options
@json_option
def bench(
    model: Path,
    ways: tuple[str, ...],
    batch: int,
    device: str,
    size: tuple[int, int] | None,
    trust: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Time the adapted MODEL beside the same model without its canonicalizers.

    MODEL is a folder that `lse train`, `lse demo` or lse_dec.save wrote.

    The two take turns, in all ways, so that other load on the machine falls on all. Times are medians with
    quartiles; "to plain" and the last column are medians of ratios within a turn.

    \b
    Example:
      lse bench runs/model --ways eager --ways ort-cpu --batch 8
    """
    from lse_export.bench import bench as measure
    from lse_export.loading import images_for, load_model

    with working(f"loading {model}"):
        adapted = load_model(model, trust=trust).to(device)
        example = images_for(adapted, size, ()).repeat(batch, 1, 1, 1)[:batch].to(device)
        models = {"plain": adapted}
        if hasattr(adapted, "without_sites"):
            models = {"plain": _plain(adapted), "adapted": adapted}
    with working("measuring"):
        rows = measure(models, example, ways=ways, **options)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows]))
        return
    shown = []
    for row in rows:
        low, high = row.spread
        numbers = (f"{row.milliseconds:.2f}", f"{low:.2f} to {high:.2f}", f"{row.throughput:.1f}",
                   f"{row.ratio:.2f}", f"{row.to_first_way:.2f}")  # fmt: skip
        shown.append((row.way, row.model, *(("not here", row.error, "", "", "") if row.error else numbers)))
    print_table(("way", "model", "ms", "quartiles", "images/s", "to plain", f"to {ways[0]}"), shown)


def _plain(adapted: nn.Module) -> nn.Module:
    """A copy of the model without its canonicalizers, by `without_sites`, which adapted models have."""
    with adapted.without_sites() as base:  # type: ignore[operator]
        plain: nn.Module = copy.deepcopy(base)
    return plain
