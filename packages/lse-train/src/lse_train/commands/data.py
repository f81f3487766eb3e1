"""`lse data`: write data sets and look at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lse_core.commands.common import PluginGroup
from lse_core.errors import OutputError
from lse_train.data.config import DIRECTIONS, SPLITS, DigitsConfig

__all__ = ["data"]


@click.group(cls=PluginGroup)
def data() -> None:
    """Generate data sets and look at them.

    \b
    Example:
      lse data digits --out runs/digits --count 6000
      lse data scenes --out runs/scenes --count 200
      lse data preview --out digits.png
    """


# what both commands need to describe a data set; the names are those of DigitsConfig
_SETTINGS: tuple[Callable[[Any], Any], ...] = (
    click.option("--scale", nargs=2, type=float, default=(0.4, 2.0), show_default=True, metavar="LOW HIGH",
                 help="Range of the resize factors."),
    click.option("--resolution", type=int, default=96, show_default=True, help="Side of an image in pixels."),
    click.option("--directions", multiple=True, type=click.Choice(DIRECTIONS), default=DIRECTIONS,
                 help="Arrangement of the digits; repeat for several.  [default: all]"),
    click.option("--glyph-size", type=float, help="Pixels of a digit at factor 1.  [default: resolution/6]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything that is drawn."),
    click.option("--split", type=click.Choice(SPLITS), default="train", show_default=True,
                 help="Which glyphs to use; no glyph is in two splits."),
    click.option("--split-seed", type=int, default=0, show_default=True,
                 help="Seed of the splits; the same for training and test sets."),
    click.option("--source", default="sklearn", show_default=True,
                 help="'sklearn', or the folder that holds MNIST/raw."),
    click.option("--variants", type=int, default=1, show_default=True,
                 help="Images per number, glyphs and places, with other factors."),
    click.option("--reference", is_flag=True, help="Make the first variant the one with all factors 1."),
)  # fmt: skip


def _settings(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@data.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--count", type=int, default=6000, show_default=True, help="Number of base images.")
@_settings
@click.option("--png", is_flag=True, help="Write every image as png/NUMBER_LABEL.png too.")
@click.option("--force", is_flag=True, help="Replace the data set of a folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print the description of the data set as JSON.")
def digits(out: Path, count: int, png: bool, force: bool, as_json: bool, **settings: Any) -> None:
    """Write images of three digits, each resized on its own.

    The folder gets digits.safetensors (images, labels, scales, boxes, ...), digits.json (settings and
    conventions) and, with --png, one picture an image. lse_train.data.read_digits reads it back.

    \b
    Example:
      lse data digits --out runs/train --count 6000 --scale 0.4 2.0 --seed 1
      lse data digits --out runs/test --count 5000 --split test --source ~/data --resolution 224
    """
    from lse_train.data.digits import generate_digits
    from lse_train.data.store import check_folder, write_digits_folder

    config = DigitsConfig(count=count, **settings)
    check_folder(out, force)  # before the work, not after
    images = config.count * config.variants
    with _progress("drawing", images) as step:
        dataset = generate_digits(config, progress=step)
    with _progress("writing pictures", images if png else 0) as step:
        description = write_digits_folder(dataset, out, png, force, step)
    if as_json:
        click.echo(json.dumps({"folder": str(out), **description}))
    else:
        click.echo(f"wrote {images} images of {config.resolution} x {config.resolution} px to {out}")


@data.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--count", type=int, default=200, show_default=True, help="Number of scenes.")
@click.option(
    "--scales",
    default="0.7,0.8,0.9,1.0,1.1,1.2,1.3",
    show_default=True,
    help="Factors of the digit, with commas between them.",
)
@click.option("--resolution", type=int, default=64, show_default=True, help="Side of an image in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything that is drawn.")
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="train",
    show_default=True,
    help="Which glyphs to use; no glyph is in two splits.",
)
@click.option(
    "--source", default="sklearn", show_default=True, help="'sklearn', or the folder that holds MNIST/raw."
)
@click.option("--force", is_flag=True, help="Replace the scenes of a folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")  # fmt: skip
def scenes(out: Path, count: int, scales: str, force: bool, as_json: bool, **settings: Any) -> None:
    """Write digits on photographs, each resized while the photograph stays as it is.

    Files are named as the authors name those of locally scaled ImageNet, CLASS/NUMBER_scale_0.7.JPEG, and
    are the same for the same settings.

    \b
    Example:
      lse data scenes --out runs/scenes --count 500 --split test
      lse data preview --from runs/scenes --out scenes.png --cols 7
    """
    from lse_core.errors import DataError
    from lse_train.data.scenes import SceneConfig, write_scenes

    try:
        factors = tuple(float(text) for text in scales.split(","))
    except ValueError as error:
        raise DataError(f"--scales takes numbers with commas between them, not {scales!r}") from error
    config = SceneConfig(count=count, scales=factors, **settings)
    images = config.count * len(factors)
    with _progress("drawing", images) as step:
        write_scenes(config, out, force=force, progress=step)
    if as_json:
        click.echo(json.dumps({"folder": str(out), "images": images, "scales": list(factors)}))
    else:
        click.echo(f"wrote {images} images of {config.resolution} x {config.resolution} px to {out}")


@data.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG file to write.")
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    help="Show a folder written by `lse data`, or one with a subfolder of pictures for each class; "
    "of the settings below only --resolution then counts.",
)
@click.option("--rows", type=click.IntRange(1), default=4, show_default=True, help="Rows of the grid.")
@click.option("--cols", type=click.IntRange(1), default=6, show_default=True, help="Columns of the grid.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="First image shown.")
@click.option("--labels/--no-labels", default=True, help="Write number and factors below every image.")
@_settings
def preview(
    out: Path, folder: Path | None, rows: int, cols: int, start: int, labels: bool, **settings: Any
) -> None:
    """Draw a grid of images, with what they show and its factors below each.

    \b
    Example:
      lse data preview --out digits.png --scale 0.4 3.0
      lse data preview --out digits.png --from runs/train --rows 8 --cols 8 --start 100
      lse data preview --out imagenet.png --from imagenet/val --cols 7 --resolution 160
    """
    from PIL import Image

    from lse_train.data.digits import generate_digits
    from lse_train.data.preview import captioned_preview, folder_preview
    from lse_train.data.preview import preview as plain_preview
    from lse_train.data.store import read_digits

    if out.suffix.lower() != ".png":
        raise OutputError(f"{out} is no PNG file; let its name end in .png")
    if folder is not None and _of_classes(folder):
        from lse_train.data.folder import open_folder

        pictures = open_folder(folder, resolution=settings["resolution"])
        drawn = folder_preview(pictures, rows, cols, start=start, labels=labels)
    else:
        if folder is not None:
            dataset = read_digits(folder)
        else:
            variants = settings["variants"]
            count = -(-(start + rows * cols) // max(1, variants))
            dataset = generate_digits(DigitsConfig(count=count, **settings))
        drawn = (captioned_preview if labels else plain_preview)(dataset, rows, cols, start=start)
    picture = Image.fromarray(drawn)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error}") from error
    click.echo(f"wrote {picture.width} x {picture.height} px to {out}")


def _of_classes(folder: Path) -> bool:
    """Whether a folder holds pictures in subfolders rather than a data set of digits."""
    if not folder.is_dir() or (folder / "digits.json").exists():
        return False
    return any(p.is_dir() and p.name != "png" and not p.name.startswith(".") for p in folder.iterdir())


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr, so that stdout stays readable by scripts; none for no work."""
    from rich.console import Console
    from rich.progress import Progress

    if not total:
        yield lambda done: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
