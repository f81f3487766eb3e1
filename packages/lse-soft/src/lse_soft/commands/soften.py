"""`lse soften`: soften a model, list its places, or print its certificate."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.commands.common import print_table, read_settings
from lse_core.timm_models import imagenet_names, make

if TYPE_CHECKING:
    from lse_soft.certificate import Certificate

__all__ = ["soften"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option(
    "--group",
    default="rotation",
    show_default=True,
    help="Name of the group that the model is to be softly equivariant to.",
)
@click.option("--softness", type=float, help="Softness b: directions with singular values below b are kept.")
@click.option(
    "--keep", type=float, help="Share of the directions to keep, from 0 to 1; in place of --softness."
)
@click.option(
    "--place",
    "places",
    multiple=True,
    metavar="NAME[=KIND:...]",
    help="A place or a kind of places to soften, such as fc1=image:16x16. May be repeated.  "
    "[default: those that suit the group]",
)
@click.option(
    "--threshold",
    type=click.Choice(["hard", "cosine", "exponential"]),
    default="hard",
    show_default=True,
    help="How directions fade as their singular value nears b. After cosine the model needs fine-tuning; "
    "exponential has no guarantee.",
)
@click.option(
    "--dc/--no-dc", default=True, show_default=True, help="Keep the filters' response to constant signals."
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the group. May be repeated."
)
@click.option(
    "--model-set",
    multiple=True,
    metavar="NAME=VALUE",
    help="A keyword of timm.create_model. May be repeated.",
)
@click.option(
    "--pretrained", is_flag=True, help="Load timm's pretrained weights of MODEL, which needs the network."
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of weights for MODEL: safetensors, or a state dict saved by torch.",
)
@click.option(
    "--list",
    "only_list",
    is_flag=True,
    help="Show the places of MODEL that can be softened, and write nothing.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the softened model.")
@click.option(
    "--bound",
    "folder",
    type=click.Path(path_type=Path),
    help="Print the certificate of the softened model in this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def soften(
    model: str | None,
    group: str,
    softness: float | None,
    keep: float | None,
    places: tuple[str, ...],
    threshold: str,
    dc: bool,
    settings: tuple[str, ...],
    model_set: tuple[str, ...],
    pretrained: bool,
    weights: Path | None,
    only_list: bool,
    out: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Make the timm model MODEL softly equivariant, without fine-tuning it.

    The weights are projected onto the directions that the group moves least. The folder then holds the
    projected weights under the model's own keys, and what the bound on each layer's error is computed from.
    The default threshold is "hard", which leaves the directions that it keeps unchanged: a pretrained network
    keeps working with it, but needs fine-tuning with the other two.

    \b
    Example:
      lse soften resnet18 --group rotation --keep 0.9 --out runs/soft
      lse soften resnet18 --weights resnet18.safetensors --keep 0.9 --out runs/soft
      lse soften vit_tiny_patch16_224 --group local_scale --softness 0.5 --set ratio=2 --out runs/soft
      lse soften --list vit_tiny_patch16_224
      lse soften --bound runs/soft
    """
    if folder is not None:
        from lse_soft.model_bound import bound

        _show(bound(folder), as_json)
        return
    if model is None:
        raise click.UsageError("name a timm model to soften, or give --bound FOLDER")
    if not only_list and out is None:
        raise click.UsageError("give --list to see the places, or --out FOLDER to write the softened model")
    if not only_list and (softness is None) == (keep is None):
        raise click.UsageError("give exactly one of --softness and --keep")
    if weights is not None and pretrained:
        raise click.UsageError("give one of --weights and --pretrained")
    kwargs = read_settings(model_set)
    made = make(model, kwargs, pretrained=pretrained, trust=True).eval()
    from lse_core.card import attach
    from lse_core.weights import load_weights

    if weights is not None:
        load_weights(made, weights)
    if weights is not None or pretrained:
        attach(made, class_names=imagenet_names(made))
    if only_list:
        _list(made, as_json)
        return
    import lse_soft
    from lse_soft.model_bound import bound

    lse_soft.soften(
        made,
        group,
        softness,
        keep=keep,
        places=_places(places),
        threshold=threshold,
        preserve_dc=dc,
        **read_settings(settings),
    )
    assert out is not None
    lse_soft.save(made, out, model_kwargs=kwargs)
    _show(bound(made), as_json)
    if not as_json:
        click.echo(
            f"{model} softened by {group}; written to {out}. Next: lse measure {out} PICTURES --change "
            f"rotation, or lse_soft.load({str(out)!r}) in Python"
        )


def _places(given: Sequence[str]) -> dict[str, str] | None:
    if not given:
        return None
    return {name: spec for name, _, spec in (text.partition("=") for text in given)}


def _list(model: Any, as_json: bool) -> None:
    from lse_soft.places import KINDS, find_places

    rows = [asdict(place) for place in find_places(model, KINDS)]
    if as_json:
        click.echo(json.dumps({"places": rows}))
        return
    columns = ("place", "kind", "grid", "stride", "prefix")
    cells = [
        (
            row["name"],
            row["kind"],
            *(" x ".join(map(str, row[k])) for k in ("grid", "stride")),
            str(row["prefix"]),
        )
        for row in rows
    ]
    print_table(columns, cells)
    click.echo(
        "Choose places with --place, which may be repeated. Linear layers need a description, such as "
        "--place fc1=image:16x16."
    )


def _show(certificates: dict[str, Certificate], as_json: bool) -> None:
    if as_json:
        rows = [{key: _plain(value) for key, value in asdict(c).items()} for c in certificates.values()]
        click.echo(json.dumps({"places": rows}))
        return
    cells = []
    for c in certificates.values():
        beyond = "" if c.vacuous_beyond is None else f"{c.vacuous_beyond:.3g}"
        if c.vacuous:
            beyond += " (within the group)"
        b = "" if c.b is None else f"{c.b:.4g}"
        cells.append((c.place, c.kind, b, f"{c.kappa:.4g}", beyond, "yes" if c.guaranteed else "no"))
    print_table(("place", "kind", "b", "kappa", "vacuous beyond", "guaranteed"), cells)
    for group, metric in {(c.group, c.metric) for c in certificates.values()}:
        click.echo(f"{group}: the relative error is at most kappa times the distance, measured in {metric}")


def _plain(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    return None if isinstance(value, float) and math.isinf(value) else value
