"""`lse data make-objects`: locally scaled objects with ground-truth masks, in mmsegmentation's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_core.errors import LSEError

__all__ = ["make_objects"]


@click.command("make-objects")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--train", type=int, default=600, show_default=True, help="Number of training images.")
@click.option("--val", type=int, help="Number of validation images.  [default: a tenth of --train]")
@click.option("--test", type=int, default=100, show_default=True, help="Number of base images for testing.")
@click.option("--size", type=int, default=128, show_default=True, help="Side of an image in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything that is drawn.")
@click.option(
    "--train-factors",
    nargs=2,
    type=float,
    default=(0.7, 1.4),
    show_default=True,
    metavar="LOW HIGH",
    help="Range of the objects' factors in training images.",
)
@click.option(
    "--test-factors",
    default="0.5,0.7,1,1.4,2",
    show_default=True,
    help="Factors of the resized object in test images, with commas between them.",
)
@click.option(
    "--families",
    default="digits,shapes,cutouts",
    show_default=True,
    help="Which objects, with commas between them.",
)
@click.option(
    "--source",
    default="sklearn",
    show_default=True,
    help="Of the digits: 'sklearn', or the folder that holds MNIST/raw.",
)
@click.option(
    "--preview",
    type=click.Path(path_type=Path),
    help="PNG file for a picture of samples and their masks; without --out nothing else is written.",
)
@click.option("--force", is_flag=True, help="Replace the data set of a folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print the description of the data set as JSON.")
def make_objects(
    out: Path | None,
    val: int | None,
    test_factors: str,
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
    """  # fmt: skip
    from lse_train.data.objects import ObjectsConfig, write_objects
    from lse_train.data.objects.preview import preview as draw_preview
    from lse_train.data.objects.write import count_images

    if out is None and preview is None:
        raise click.UsageError("name a folder with --out, or a picture with --preview")
    if preview is not None and preview.suffix.lower() != ".png":
        raise LSEError(f"{preview} is no PNG file; let its name end in .png")
    try:
        factors = tuple(float(text) for text in test_factors.split(","))
    except ValueError as error:
        raise LSEError(
            f"--test-factors takes numbers with commas between them, not {test_factors!r}"
        ) from error
    config = ObjectsConfig(
        val=settings["train"] // 10 if val is None else val,
        test_factors=factors,
        families=tuple(families.split(",")),
        **settings,
    )
    said: dict[str, Any] = {}
    if out is not None:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("drawing", total=sum(count_images(config).values()))
            said = write_objects(config, out, force=force, progress=lambda n: bar.advance(task, n))
        said = {"folder": str(out), **said}
    if preview is not None:
        draw_preview(config, preview)
        said["preview"] = str(preview)
    if as_json:
        click.echo(json.dumps(said))
        return
    if out is not None:
        counts = ", ".join(f"{n} {split}" for split, n in said["images"].items())
        click.echo(f"wrote {counts} images of {config.size} x {config.size} px to {out}")
    if preview is not None:
        click.echo(f"wrote {preview}")
