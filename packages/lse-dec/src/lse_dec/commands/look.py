"""`lse look`: a picture of what the canonicalizers of a model do to photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.atomic import replacing
from lse_core.errors import LSEError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from lse_dec.adaptation import AdaptedModel

__all__ = ["look"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG, SVG or PDF to write."
)
@click.option(
    "--size", type=click.IntRange(8), help="Side of the images in pixels; default: the model's own."
)
@click.option("--mean", type=float, multiple=True, help="Per channel; default: the model's own.")
@click.option("--std", type=float, multiple=True, help="Per channel; default: the model's own.")
@click.option("--site", "sites", multiple=True, help="For a timm name: stage to adapt, repeatable.")
@click.option("--canonicalizer", default="variation", show_default=True, help="For a timm name.")
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as numbers, one JSON object.")
def look(
    model: str,
    images: tuple[Path, ...],
    out: Path,
    size: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    sites: tuple[str, ...],
    canonicalizer: str,
    as_json: bool,
) -> None:
    """Draw what every site of MODEL does to IMAGES: warp, canonical picture and map, displacement, residual.

    MODEL is a folder that lse_dec.save, `lse adapt` or `lse train` wrote, or the name of a timm model. That
    one gets fresh canonicalizers (and random weights); only analytic ones, like the default, do anything
    then.

    \b
    Example:
      lse look runs/digits three.png seven.png --out runs/look.png
      lse look resnet18 photo.jpg --site image --site layer2 --out look.png
    """
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{out} must end in .png, .svg or .pdf")
    import torch

    from lse_dec.monitor import as_scalars, displacement_map
    from lse_dec.plot import plot_sites, view_sites

    adapted, run = _model(model, sites, canonicalizer)
    pictures = torch.cat([_read(path, *_shape(adapted, run, size)) for path in images])
    channels = pictures.shape[1]
    centre, deviation = (
        torch.tensor(_numbers(name, given, run, adapted, channels)).view(1, -1, 1, 1)
        for name, given in (("mean", mean), ("std", std))
    )
    like = next(adapted.parameters())
    x = ((pictures - centre) / deviation).to(like.dtype)
    figure = plot_sites(adapted, x, pictures=pictures, names=[path.stem for path in images])
    _write(figure, out)
    views = view_sites(adapted, x)
    numbers = as_scalars({site: view.found for site, view in views.items()}, prefix="")
    if as_json:
        click.echo(json.dumps({"file": str(out), "sites": list(views), **numbers}, indent=2))
        return
    for site, view in views.items():
        away = float(displacement_map(view.found.warp, *pictures.shape[2:]).mean())
        click.echo(f"{site}: moves pixels by {away:.1f} px on average")
    click.echo(f"wrote {out}")


def _model(name: str, sites: Sequence[str], canonicalizer: str) -> tuple[AdaptedModel, dict[str, Any]]:
    """The adapted model, and what a training run said of its images, {} where there was none."""
    import lse_dec

    if Path(name).is_dir():
        from lse_dec.training.models import load_run, read_run

        found = load_run(name)
        if not isinstance(found, lse_dec.AdaptedModel):
            raise LSEError(f"{name} holds a model without canonicalizers: there is nothing to look at")
        return found, read_run(name)
    from lse_dec.commands.adapt import create

    return lse_dec.adapt(create(name, {}, False), list(sites) or None, canonicalizer=canonicalizer), {}


def _shape(model: AdaptedModel, run: Mapping[str, Any], size: int | None) -> tuple[int, int, int]:
    """Channels, height and width of the model's images."""
    from lse_dec.backbones import IMAGE, backbone_of
    from lse_dec.backbones.probe import image_sizes

    with model.without_sites() as base:
        where = backbone_of(base).image(base)
        own = where.size or image_sizes(base)[0]
    site = model.sites.get(IMAGE)
    channels = site.where.channels if site is not None else where.channels
    if size is None and run.get("resolution"):
        size = int(run["resolution"])
    return (channels, size, size) if size is not None else (channels, *own)


def _numbers(
    name: str, given: Sequence[float], run: Mapping[str, Any], model: Any, channels: int
) -> list[float]:
    card = getattr(model, "pretrained_cfg", None) or {}
    found = list(given) or list(run.get(name) or ()) or list(card.get(name) or ())
    if given and len(given) not in (1, channels):
        raise LSEError(f"--{name} takes 1 or {channels} numbers here; got {len(given)}")
    if len(found) != channels:
        # a card for three channels says nothing of a model made for another number
        found = found[:1] * channels if len(found) == 1 else [0.5] * channels
    return found


def _read(path: Path, channels: int, height: int, width: int) -> Tensor:
    """A picture as (1, channels, height, width) within [0, 1], cropped in the middle to the right form."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps, UnidentifiedImageError

    if channels not in (1, 3):
        raise LSEError(f"the model takes images of {channels} channels; pictures have 1 or 3")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError as error:
        raise LSEError(f"there is no picture {path}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise LSEError(f"{path} is not a picture that can be read") from error
    array = np.array(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(array).float().div(255.0).view(height, width, channels).permute(2, 0, 1)[None]


def _write(figure: Any, out: Path) -> None:
    """The figure as a file that appears whole or not at all."""
    with replacing(out, overwrite=True) as part:
        figure.savefig(part, dpi=110)
