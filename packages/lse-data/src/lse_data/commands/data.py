"""`lse data`: write data sets and look at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_core.errors import OutputError
from lse_data.commands import options
from lse_data.commands.group import PluginGroup

__all__ = ["data"]


@click.group(cls=PluginGroup)
def data() -> None:
    """Generate data sets and look at them.

    \b
    Example:
      lse data digits --out runs/digits --count 6000
      lse data scenes --out runs/scenes --count 200
      lse data mnist --out runs/mnist
      lse data preview --out digits.png
    """


# what two commands need to describe a data set; the names are those of DigitsConfig
_digits = options.together(
    click.option("--scale", nargs=2, type=float, default=(0.4, 2.0), show_default=True, metavar="LOW HIGH",
                 help="Smallest and largest factor by which digits are resized."),
    click.option("--resolution", type=int, default=96, show_default=True, help="Side of an image in pixels."),
    click.option("--directions", multiple=True, default=("horizontal", "vertical", "diagonal"),
                 metavar="horizontal|vertical|diagonal",
                 help="Arrangement of the digits; repeat for several."),
    click.option("--glyph-size", type=float, help="Pixels of a digit at factor 1.  [default: resolution/6]"),
    options.seed,
    options.split,
    click.option("--split-seed", type=int, default=0, show_default=True,
                 help="Seed of the splits; the same for training and test sets."),
    options.source,
    click.option("--variants", type=int, default=1, show_default=True,
                 help="Images of the same digits at the same places, each with other factors."),
    click.option("--reference", is_flag=True, help="Give all digits of the first variant the factor 1."),
)  # fmt: skip


@data.command()
@options.out
@click.option("--count", type=int, default=6000, show_default=True, help="Number of base images.")
@_digits
@click.option("--png", is_flag=True, help="Also write every image as png/NUMBER_LABEL.png.")
@options.force
@options.as_json
def digits(out: Path, png: bool, force: bool, as_json: bool, **settings: Any) -> None:
    """Write images of three digits, each resized on its own.

    The folder gets digits.safetensors (images, labels, scales, boxes, ...), digits.json (settings and
    conventions) and, with --png, one picture an image. lse_data.read_digits reads it back.

    \b
    Example:
      lse data digits --out runs/train --count 6000 --scale 0.4 2.0 --seed 1
      lse data digits --out runs/test --count 5000 --split test --source ~/data --resolution 224
    """
    from lse_core.progress import Bars
    from lse_data import DigitsConfig, generate_digits, write_digits_folder
    from lse_data.files import check_folder

    config = DigitsConfig(**settings)
    check_folder(out, force)  # before the work, not after
    images = config.count * config.variants
    with Bars() as bars:
        dataset = generate_digits(config, progress=bars.add("drawing", images).advance)
        written = bars.add("writing pictures", images).advance if png else None
        description = write_digits_folder(dataset, out, png, force, written)
    _tell(out, images, config.resolution, as_json, description)


@data.command()
@options.out
@click.option("--count", type=int, default=200, show_default=True, help="Number of scenes.")
@click.option("--scales", type=options.NUMBERS, default="0.7,0.8,0.9,1.0,1.1,1.2,1.3", show_default=True,
              help="Factors of the digit, separated by commas.")  # fmt: skip
@click.option("--resolution", type=int, default=64, show_default=True, help="Side of an image in pixels.")
@options.seed
@options.split
@options.source
@options.force
@options.as_json
def scenes(out: Path, force: bool, as_json: bool, **settings: Any) -> None:
    """Write digits on photographs, each resized while the photograph stays as it is.

    Files are named as the authors name those of locally scaled ImageNet, CLASS/NUMBER_scale_0.7.JPEG, and
    are the same for the same settings.

    \b
    Example:
      lse data scenes --out runs/scenes --count 500 --split test
      lse data preview --from runs/scenes --out scenes.png --cols 7
    """
    from lse_core.progress import Bars
    from lse_data import SceneConfig, write_scenes

    config = SceneConfig(**settings)
    images = config.count * len(config.scales)
    with Bars() as bars:
        write_scenes(config, out, force=force, progress=bars.add("drawing", images).advance)
    _tell(out, images, config.resolution, as_json, {"images": images, "scales": list(config.scales)})


def _tell(out: Path, images: int, side: int, as_json: bool, said: dict[str, Any]) -> None:
    text = f"wrote {images} images of {side} x {side} px to {out}"
    click.echo(json.dumps({"folder": str(out), **said}) if as_json else text)


@data.command()
@options.out
@options.as_json
def mnist(out: Path, as_json: bool) -> None:
    """Fetch MNIST, 70,000 handwritten digits of 28 x 28 pixels, for --source and recipes.

    torchvision fetches and checks the four packed files, 12 MB; it needs the network. Files that are in
    OUT/MNIST/raw already, packed or not, are taken as they are.

    \b
    Example:
      lse data mnist --out runs/mnist
      lse data preview --out digits.png --source runs/mnist
      lse train tools/recipes/unseen_scales.yaml --profile mnist
    """
    from lse_data.glyphs import fetch_mnist, mnist_glyphs

    folder = fetch_mnist(out)
    counts = {split: len(mnist_glyphs(out, split)) for split in ("train", "val", "test")}
    said = ", ".join(f"{count} {split}" for split, count in counts.items())
    click.echo(json.dumps({"folder": str(out), **counts}) if as_json else f"MNIST is in {folder}: {said}")


@data.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG file to write.")
@click.option("--from", "folder", type=click.Path(path_type=Path),
              help="Show a folder written by `lse data`, or one with a subfolder of pictures for each class; "
                   "of the settings below only --resolution then counts.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), default=4, show_default=True, help="Rows of the grid.")
@click.option("--cols", type=click.IntRange(1), default=6, show_default=True, help="Columns of the grid.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="First image shown.")
@click.option("--labels/--no-labels", default=True, help="Write number and factors below every image.")
@_digits
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

    from lse_core.atomic import replacing
    from lse_data import DigitsConfig, DigitsDataset, ImageFolder, generate_digits, read_digits
    from lse_data.folder import open_folder
    from lse_data.preview import preview as draw

    if out.suffix.lower() != ".png":
        raise OutputError(f"{out} is not the name of a PNG file; it must end in .png")
    dataset: DigitsDataset | ImageFolder
    if folder is None:
        count = -(-(start + rows * cols) // max(1, settings["variants"]))
        dataset = generate_digits(DigitsConfig(count=count, **settings))
    elif _of_classes(folder):
        dataset = open_folder(folder, resolution=settings["resolution"])
    else:
        dataset = read_digits(folder)
    picture = Image.fromarray(draw(dataset, rows, cols, start=start, labels=labels))
    with replacing(out, overwrite=True) as partial:
        picture.save(partial, format="PNG")
    click.echo(f"wrote {picture.width} x {picture.height} px to {out}")


def _of_classes(folder: Path) -> bool:
    """Whether a folder holds pictures in subfolders rather than a data set of digits."""
    if not folder.is_dir() or (folder / "digits.json").exists():
        return False
    return any(p.is_dir() and p.name != "png" and not p.name.startswith(".") for p in folder.iterdir())
