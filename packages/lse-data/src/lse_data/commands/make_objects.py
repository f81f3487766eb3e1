"""`lse data make-objects`: locally scaled objects with ground-truth masks, in mmsegmentation's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_core.errors import OutputError
from lse_data.commands import options

__all__ = ["make_objects"]


@click.command("make-objects")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--train", type=int, default=600, show_default=True, help="Number of training images.")
@click.option("--val", type=int, help="Number of validation images.  [default: a tenth of --train]")
@click.option("--test", type=int, default=100, show_default=True, help="Number of base images for testing.")
@click.option("--size", type=int, default=128, show_default=True, help="Side of an image in pixels.")
@options.seed
@click.option("--train-factors", nargs=2, type=float, default=(0.7, 1.4), show_default=True,
              metavar="LOW HIGH", help="Least and greatest factor in training images.")  # fmt: skip
@click.option("--test-factors", type=options.NUMBERS, default="0.5,0.7,1,1.4,2", show_default=True,
              help="Factors of the resized object in test images, separated by commas.")  # fmt: skip
@click.option("--families", default="digits,shapes,cutouts", show_default=True,
              help="Families of objects, separated by commas.")  # fmt: skip
@options.source
@click.option("--preview", type=click.Path(path_type=Path),
              help="PNG file to draw samples and their masks to; without --out, nothing else is written."
              )  # fmt: skip
@options.force
@options.as_json
def make_objects(
    out: Path | None,
    val: int | None,
    families: str,
    preview: Path | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write images of two objects, each resized on its own on a background that stays, and their masks.

    Training images have random factors. Every base image of the test set is written once a factor, one
    of its objects resized and the rest held: test/000012_object0_scale_0.7.png. The folder is in
    mmsegmentation's format (img_dir, ann_dir) with the classes in classes.txt and everything else in
    objects.json; lse_seg's ScaledObjectsDataset reads it.

    \b
    Example:
      lse data make-objects --out data/objects --train 600 --test 100
      lse data make-objects --preview objects.png --families digits,shapes
    """
    from lse_core.progress import Bars
    from lse_data.objects import ObjectsConfig, write_objects
    from lse_data.objects.preview import preview as draw
    from lse_data.objects.write import count_images

    if out is None and preview is None:
        raise click.UsageError("name a folder with --out, or a picture with --preview")
    if preview is not None and preview.suffix.lower() != ".png":
        raise OutputError(f"{preview} is not the name of a PNG file; it must end in .png")
    val = settings["train"] // 10 if val is None else val
    config = ObjectsConfig(val=val, families=tuple(families.split(",")), **settings)
    said: dict[str, Any] = {}
    lines = []
    if out is not None:
        with Bars() as bars:
            drawn = bars.add("drawing", sum(count_images(config).values())).advance
            said = {"folder": str(out), **write_objects(config, out, force=force, progress=drawn)}
        counts = ", ".join(f"{n} {split}" for split, n in said["images"].items())
        lines.append(f"wrote {counts} images of {config.size} x {config.size} px to {out}")
    if preview is not None:
        draw(config, preview)
        said["preview"] = str(preview)
        lines.append(f"wrote {preview}")
    click.echo(json.dumps(said) if as_json else "\n".join(lines))
