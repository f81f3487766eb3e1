"""`lse look`: a picture of what the canonicalizers of a model do to photographs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lse_core.atomic import replacing
from lse_core.errors import LSEError, OutputError
from lse_dec.commands.adapt import PATH, TRUST, create, with_options

if TYPE_CHECKING:
    from lse_core.preprocess import Preprocess
    from lse_dec.adapted import AdaptedModel

__all__ = ["look"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, help="PNG, SVG or PDF to write.")
@click.option(
    "--size",
    type=click.IntRange(8),
    help="Height and width of the images in pixels; default: the model's own.",
)
@click.option("--mean", type=float, multiple=True, help="Mean of pixels in [0, 1]; default: the model's own.")
@click.option("--std", type=float, multiple=True, help="Standard deviation; default: the model's own.")
@click.option(
    "--site",
    "sites",
    multiple=True,
    help="If MODEL is not a folder: site to adapt; repeat for several.",
)
@click.option(
    "--canonicalizer",
    default="variation",
    show_default=True,
    help="If MODEL is not a folder: name of the canonicalizer.",
)
@TRUST
@click.option(
    "--json", "as_json", is_flag=True, help="Print the numbers behind the drawing as one JSON object."
)
def look(
    model: str,
    images: tuple[Path, ...],
    out: Path,
    size: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    sites: tuple[str, ...],
    canonicalizer: str,
    trust: bool,
    as_json: bool,
) -> None:
    """Draw what every site of MODEL does to the pictures IMAGES.

    MODEL is a folder that lse_dec.save, `lse adapt`, `lse train` or `lse demo` wrote, the name of a timm
    model, or "module:function" with --trust. Models of the last two kinds get random weights and fresh
    canonicalizers, of which only an analytic one, such as the default, answers with more than the identity.

    \b
    Example:
      lse look runs/digits three.png seven.png --out runs/look.png
      lse look resnet18 photo.jpg --site image --site layer2 --out look.png
    """
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{out} must end in .png, .svg or .pdf")
    from lse_dec.monitor import as_scalars, displacement_map
    from lse_dec.plot import plot_sites, view_sites

    adapted = _model(model, sites, canonicalizer, trust)
    preprocess = _preprocess(adapted, size, mean, std)
    prepared = preprocess.batch(images)
    pictures = preprocess.denormalise(prepared)
    x = prepared.to(next(adapted.parameters()).dtype)
    figure = plot_sites(adapted, x, pictures=pictures, names=[path.stem for path in images])
    with replacing(out, overwrite=True) as part:  # the file appears whole or not at all
        figure.savefig(part, dpi=110)
    views = view_sites(adapted, x)
    numbers = as_scalars(views, prefix="")
    if as_json:
        click.echo(json.dumps({"file": str(out), "sites": list(views), **numbers}, indent=2))
        return
    for site, view in views.items():
        away = float(displacement_map(view.warp, *pictures.shape[2:]).mean())
        click.echo(f"{site}: moves pixels by {away:.1f} px on average")
    click.echo(f"wrote {out}")


def _model(name: str, sites: Sequence[str], canonicalizer: str, trust: bool) -> AdaptedModel:
    import lse_dec

    if Path(name).is_dir():
        found = lse_dec.load(name, trust=trust)
        if not isinstance(found, lse_dec.AdaptedModel):
            raise LSEError(f"{name} holds a model without canonicalizers: adapt it first, see `lse adapt`")
        return found
    return lse_dec.adapt(create(name, {}, False, trust), list(sites) or None, canonicalizer=canonicalizer)


def _preprocess(
    model: AdaptedModel, size: int | None, mean: Sequence[float], std: Sequence[float]
) -> Preprocess:
    """How the model's pictures are prepared, changed by the options of the command line."""
    from lse_core.preprocess import preprocess_of
    from lse_dec.backbones import IMAGE, backbone_of
    from lse_dec.backbones.probe import image_sizes

    known = preprocess_of(model)
    with model.without_sites() as base:
        where = backbone_of(base).image(base)
        own = where.size or image_sizes(base)[0]
    if known is not None:
        values = known.plain() | ({} if known.size is not None else {"size": own})
    else:
        site = model.sites.get(IMAGE)
        channels = site.where.channels if site is not None else where.channels
        values = {"channels": channels, "size": own, "mean": (0.5,) * channels, "std": (0.5,) * channels}
    return with_options(values, None if size is None else (size, size), mean, std)
