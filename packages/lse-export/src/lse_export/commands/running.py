"""`lse predict` and `lse bench`: models run here, saved or exported."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.commands.common import print_table, working
from lse_export.commands import common

if TYPE_CHECKING:
    from torch import nn

    from lse_export.predict import Prediction


@click.command()
@click.argument("model", type=common.PATH)
@click.argument("images", nargs=-1, required=True, type=common.PATH)
@click.option("--top", type=click.IntRange(1), default=3, help="How many classes to name.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV file to write, a row for each picture.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be read, and count them.")
@common.force_option("CSV file")
@click.option("--provider", default="cpu", help="Where ONNX files run: cpu, cuda, tensorrt.")
@click.option(
    "--mean", multiple=True, type=float, help="Mean of all channels, or of each.  [default: the model's]"
)
@click.option(
    "--std", multiple=True, type=float, help="Deviation of all channels, or of each.  [default: the model's]"
)
@common.trust_option
@common.tensorrt_options
@common.json_option
def predict(
    model: Path,
    images: tuple[Path, ...],
    out: Path | None,
    force: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Classify pictures with MODEL: an exported ONNX file, or a folder with a trained or saved model.

    IMAGES are pictures or folders of them. MODEL itself says how they are prepared and what its classes are
    called. The CSV file has the columns file, class, probability, then class_2, probability_2 and so on, and
    error, which says why a picture was left out.

    \b
    Example:
      lse predict model.onnx photo.jpg
      lse predict model.onnx photos/ --top 1 --out results.csv --skip-bad
      lse predict runs/mine photos/ --json
    """
    from lse_core.atomic import check_target
    from lse_core.pictures import PictureError, picture_files
    from lse_core.progress import Bars
    from lse_export.predict import predict as classify

    if out is not None:
        check_target(out, force)
    files = picture_files(images)
    with Bars() as bars:
        show = bars.add("classifying").update
        options |= {"mean": mean or None, "std": std or None}
        try:
            found = classify(model, files, on_picture=show, **options)
        except PictureError as error:
            raise PictureError(f"{error}; --skip-bad leaves such pictures out") from error
    if out is not None:
        _write(found, out, force)
    if as_json:
        click.echo(json.dumps([{**vars(p), "file": str(p.file)} for p in found]))
    else:
        for p in found if out is None else ():
            best = ", ".join(
                f"{' '.join(c.split())} {share:.1%}"
                for c, share in zip(p.classes, p.probabilities, strict=True)
            )
            click.echo(f"{p.file}: {best or 'left out'}")
    bad = [p for p in found if p.error]
    if out is not None and not as_json:
        click.echo(f"wrote {out}: {len(found) - len(bad)} pictures")
    if bad:
        click.echo(f"left out {len(bad)} of {len(found)} pictures that cannot be read:", err=True)
        for p in bad:
            click.echo(f"  {p.error}", err=True)


def _write(found: Sequence[Prediction], out: Path, force: bool) -> None:
    from lse_core.atomic import replacing

    ranks = range(1, max(1, *(len(p.classes) for p in found)) + 1)
    head = [name if rank == 1 else f"{name}_{rank}" for rank in ranks for name in ("class", "probability")]
    with replacing(out, overwrite=force) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *head, "error"])
        for p in found:
            cells = [cell for pair in zip(p.classes, p.probabilities, strict=True) for cell in pair]
            writer.writerow([p.file, *(cells or [""] * len(head)), p.error])


@click.command()
@click.argument("model", type=common.PATH)
@click.option(
    "--ways",
    multiple=True,
    metavar="NAME",
    default=("eager", "ort-cpu"),
    help="Way to run: eager, compiled, ort-cpu, ort-cuda, ort-tensorrt or tensorrt; repeatable.",
)
@click.option("--batch", type=click.IntRange(1), default=1, help="Images in each call.")
@click.option("--rounds", type=click.IntRange(2), default=20, help="Times each is run.")
@click.option("--device", default="cpu", help="Device for eager and compiled.")
@common.size_option
@common.trust_option
@common.tensorrt_options
@common.json_option
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
    """Time the adapted MODEL and the same model without its canonicalizers.

    MODEL is a folder that `lse train`, `lse demo` or lse_dec.save wrote.

    The models take turns in all ways, so that other load on the machine affects all of them. Times are
    medians with quartiles; "to plain" and the last column are medians of the ratios within a round.

    \b
    Example:
      lse bench runs/model --ways eager --ways ort-cpu --batch 8
    """
    from lse_export.bench import bench as measure
    from lse_export.loading import images_for, load_model

    with working(f"loading {model}"):
        adapted = load_model(model, trust=trust).to(device)
        example = images_for(adapted, size, ()).repeat(batch, 1, 1, 1)[:batch].to(device)
        both = hasattr(adapted, "without_sites")
        models = {"plain": _plain(adapted), "adapted": adapted} if both else {"plain": adapted}
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
