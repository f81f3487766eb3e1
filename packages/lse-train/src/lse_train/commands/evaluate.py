"""`lse evaluate`: measure a trained or adapted model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lse_core.commands.common import check_device
from lse_core.errors import LSEError

__all__ = ["evaluate", "print_metrics"]

PLACES = ("cache_dir", "dir", "file", "folder", "path", "root", "source")
"""Settings of data sets that name places; the source "sklearn" is none, it comes with a library."""

WORDS = ("crop_mode", "directions", "interpolation", "split")
"""Settings of data sets that are words by definition: a folder test/ is not what `split: test` means."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", help="Name of a data set.  [default: the validation and test sets of the run]")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE",
              help="Setting of the data set, as in scale=[0.4,2]; values are YAML. Repeatable.")  # fmt: skip
@click.option("--bracket", "brackets", multiple=True, nargs=2, type=float, metavar="LOW HIGH",
              help="Range of factors in which to measure accuracy; repeatable.")  # fmt: skip
@click.option("--warp-ratio", default=2.0, show_default=True,
              help="Largest slope of the random warps for InvE, where images have no variants.")  # fmt: skip
@click.option("--batch-size", default=200, show_default=True, type=click.IntRange(1), help="Batch size.")
@click.option("--device", default="cpu", show_default=True, help="Torch device, such as cuda.")
@click.option("--trust", is_flag=True,
              help="Call the function and read the data sets that FOLDER names; only for folders you made "
                   "or know.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    folder: Path,
    data: str | None,
    pairs: tuple[str, ...],
    brackets: tuple[tuple[float, float], ...],
    warp_ratio: float,
    batch_size: int,
    device: str,
    trust: bool,
    as_json: bool,
) -> None:
    """Measure the model in FOLDER, which `lse train`, `lse demo` or lse_dec.save wrote.

    Accuracy, InvE (Eq. 24), accuracy by range of scale, and for each canonicalizer how far its warps
    move points, its residual and the share of solves that did not converge.

    \b
    Example:
      lse evaluate runs/dec
      lse evaluate runs/dec --data image_folder --set root=photos/
      lse evaluate runs/dec --data digits --set count=250 --set split=test --bracket 0.4 0.8
    """
    from lse_core.card import card_of
    from lse_core.progress import Bars
    from lse_dec.checkpoint import load
    from lse_train.config import Data
    from lse_train.measure import evaluate as measure
    from lse_train.reading import parse, set_options

    options = set_options(pairs)
    check_device(device)
    model = load(folder, trust=trust)
    found: dict[str, Any] = {}
    cases: dict[str, tuple[str, dict[str, Any]]] = {}
    if data is not None:
        cases[data] = (data, options)
    else:
        training = card_of(model).training
        if not training or "data" not in training:
            raise LSEError(f"{folder} tells no data set of its own: name one with --data")
        try:
            own = parse(Data, training["data"], "data")
        except LSEError as error:
            raise LSEError(
                f"{folder} tells of its data what cannot be read: {error}; name a data set with --data"
            ) from error
        names = [*(["val"] if own.val is not None else []), *own.tests]
        cases = {name: (own.name, {**own.split(name), **options}) for name in names}
        if not cases:
            raise LSEError(f"the run in {folder} names no validation or test set: name one with --data")
        place = next((p for _, settings in cases.values() for p in _places(settings, options)), None)
        if place is not None and not trust:
            raise LSEError(
                f"{folder} says that its data are in {place[:200]!r}, which would be used: if you trust this "
                "folder, pass --trust, or name the data yourself with --data and --set"
            )
    with Bars() as bars:
        for name, (plugin, settings) in cases.items():
            found[name] = measure(
                model,
                plugin,
                settings,
                brackets=brackets,
                warp_ratio=warp_ratio,
                batch_size=batch_size,
                device=device,
                on_batch=bars.add(name).update,
            )
    if as_json:
        click.echo(json.dumps(found))
    else:
        print_metrics(found)


def _places(settings: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Texts in a data set's settings that may name a place on disk, but for those `given` by the user.

    Whatever looks like a path, names something that exists, or stands where data sets have a path.
    """
    waiting = [(name, value) for name, value in settings.items() if name not in given]
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list | tuple):
            waiting += [(name, item) for item in value]
        elif isinstance(value, str) and (name, value) != ("source", "sklearn"):
            path = os.sep in value or "/" in value or value.startswith("~")
            if path or name in PLACES or (name not in WORDS and _exists(value)):
                yield value


def _exists(text: str) -> bool:
    """Whether something is there; what the system cannot tell of counts as there."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return True


def print_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what `lse_train.evaluate` found, by data set."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, found in metrics.items():
        table = Table("", "value", title=f"{name}: {found['images']} images", box=box.SIMPLE, pad_edge=False)
        accuracy = found["accuracy"]
        table.add_row("accuracy", "no labels" if accuracy is None else f"{100 * accuracy:.2f}%")
        table.add_row("InvE", f"{found['invariance_error']:.4f}")
        for bracket, value in found.get("accuracy_by_scale", {}).items():
            table.add_row(f"accuracy at {bracket}", f"{100 * value:.2f}%")
        for site, values in found.get("sites", {}).items():
            table.add_row(f"{site}: mean displacement", f"{values['displacement_pixels']:.2f} px")
            if values["residual"] is not None:
                table.add_row(f"{site}: residual", f"{values['residual']:.1e}")
                table.add_row(f"{site}: not converged", f"{100 * values['not_converged']:.1f}%")
        console.print(table)
