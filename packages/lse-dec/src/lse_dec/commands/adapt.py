"""`lse adapt`: look at a model's stages, or write an adapted model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.commands.common import print_table, read_class_names, read_settings
from lse_core.errors import LSEError, OutputError

if TYPE_CHECKING:
    from lse_core.preprocess import Preprocess

__all__ = ["PATH", "TRUST", "adapt", "create", "with_options"]


PATH = click.Path(dir_okay=False, path_type=Path)
TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Import and call the function that MODEL names. Use it only for code you trust.",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option("--list", "only_list", is_flag=True, help="Show the stages of MODEL, and write nothing.")
@click.option("--all", "everything", is_flag=True, help="With --list: every module that takes a spatial map.")
@click.option(
    "--site", "sites", multiple=True, help="Stage to adapt; repeatable. Default: image and the first."
)
@click.option("--canonicalizer", default="dec", show_default=True, help="Name of the canonicalizer.")
@click.option("--warp", default="separable", show_default=True, help="Name of the warp family.")
@click.option("--rule", default="residual", show_default=True, help="Name of the update rule.")
@click.option("--solver", default="anderson", show_default=True, help="Name of the solver.")
@click.option("--steps", default=5, show_default=True, type=click.IntRange(1), help="Steps of the solver.")
@click.option(
    "--mode",
    type=click.Choice(["invariant", "equivariant"]),
    default="invariant",
    show_default=True,
    help="With equivariant, dense outputs of the stages are warped back.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting of the canonicalizer; repeat for several.",
)
@click.option("--model-set", multiple=True, metavar="NAME=VALUE", help="A keyword of timm.create_model.")
@click.option("--pretrained", is_flag=True, help="Load timm's weights for MODEL (needs the network).")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of weights for MODEL, a timm model: safetensors, or a state dict saved by torch.",
)
@click.option(
    "--size",
    nargs=2,
    type=click.IntRange(8),
    metavar="HEIGHT WIDTH",
    help="Pixels of a picture that the model takes.",
)
@click.option(
    "--mean", type=float, multiple=True, help="Mean of pixels in [0, 1]; once, or for each channel."
)
@click.option("--std", type=float, multiple=True, help="Standard deviation of pixels in [0, 1]; likewise.")
@click.option("--class-names", type=PATH, help="Text file with the name of one class on each line.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write the adapted model to.")
@click.option("--force", is_flag=True, help="Replace the model in the folder --out.")
@TRUST
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def adapt(
    model: str,
    only_list: bool,
    everything: bool,
    sites: tuple[str, ...],
    canonicalizer: str,
    warp: str,
    rule: str,
    solver: str,
    steps: int,
    mode: str,
    settings: tuple[str, ...],
    model_set: tuple[str, ...],
    pretrained: bool,
    weights: Path | None,
    size: tuple[int, int] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    class_names: Path | None,
    out: Path | None,
    force: bool,
    trust: bool,
    as_json: bool,
) -> None:
    """Adapt MODEL and write it to a folder, or list the stages where it can be adapted.

    MODEL is the name of a timm model, a folder with a model that `lse train` trained without
    canonicalizers, or "module:function" with --trust, where the function returns a torch module. timm's
    models say how they want their pictures prepared; for others give --size, --mean and --std.

    \b
    Example:
      lse adapt --list resnet18
      lse adapt my_models:classifier --trust --size 96 96 --mean 0.5 --std 0.25 --site image --out runs/mine
      lse adapt vit_tiny_patch16_224 --site image --site blocks.0 --rule compose --out runs/vit
    """
    if not only_list and out is None:
        raise click.UsageError("give --list to see the stages, or --out FOLDER to write an adapted model")
    if out is not None:
        _check_folder(out, force)
    base = create(model, read_settings(model_set), pretrained, trust, weights)
    if only_list:
        _show_stages(model, base, everything, as_json)
        return
    import lse_dec

    assert out is not None
    options = read_settings(settings)
    own = sorted(options.keys() & {"canonicalizer", "rule", "warp", "solver", "steps", "mode", "sites"})
    if own:
        option = "site" if own[0] == "sites" else own[0]
        raise click.UsageError(f"{own[0]} is not set by --set; use its own option --{option}")
    preprocess, names = (
        _preprocess(base, size, mean, std),
        None if class_names is None else read_class_names(class_names),
    )
    try:
        adapted = lse_dec.adapt(
            base,
            list(sites) or None,
            canonicalizer=canonicalizer,
            warp=warp,
            rule=rule,
            solver=solver,
            steps=steps,
            mode=mode,
            **options,
        )
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, LSEError):
            raise
        first = " ".join(str(error).split())
        raise LSEError(f"a setting of the canonicalizer {canonicalizer!r} is refused: {first}") from error
    lse_dec.save(adapted, out, preprocess=preprocess, class_names=names)
    added = sum(p.numel() for p in adapted.canonicalizer_parameters())
    total = sum(p.numel() for p in adapted.parameters())
    summary = {
        "model": model,
        "sites": adapted.names,
        "parameters": total,
        "added": added,
        "folder": str(out),
    }
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(
            f"{model} adapted at {', '.join(adapted.names)}: {added:,} parameters on {total - added:,}; "
            f"written to {out}. Next: lse export onnx {out} --out model.onnx"
        )


def _check_folder(out: Path, force: bool) -> None:
    """Refuse the folder of a run, whatever the user says, and without --force one that holds a model."""
    from lse_dec.checkpoint.loading import INSIDE

    for name in ("settings.json", "results.json", *(f"{inside}/config.json" for inside in INSIDE)):
        if (out / name).exists():
            raise OutputError(f"{out} is the folder of a run (it contains {name}): choose another folder")
    if (out / "config.json").exists() and not force:
        raise OutputError(f"{out} holds a model already; choose another folder, or --force to replace it")


def _preprocess(
    model: Any, size: tuple[int, int] | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocess | None:
    """How pictures are prepared; None where the command line does not say."""
    from lse_core.preprocess import channels_and_size, preprocess_of

    if not (size or mean or std):
        return None
    known = preprocess_of(model)
    channels, own = channels_and_size(model)
    values = known.plain() if known is not None else {"channels": channels or 3, "size": own}
    return with_options(values, size, mean, std)


def with_options(
    values: dict[str, Any], size: tuple[int, int] | None, mean: Sequence[float], std: Sequence[float]
) -> Preprocess:
    """A preprocessing from what is known of it and the options --size, --mean and --std.

    Args:
        values: fields of `lse_core.Preprocess`, at least "channels" and "size".
        size: (height, width) in pixels, None where the option is absent.
        mean: of pixels in [0, 1], one number or one for each channel; empty where the option is absent.
        std: likewise.

    Raises:
        click.UsageError: no size, from neither side.
        LSEError: another number of means or deviations, or one out of range.
    """
    from lse_core.preprocess import Preprocess
    from lse_core.settings import validated

    if size or values["size"] is None:
        values["size"] = size
    if values["size"] is None:
        raise click.UsageError("give --size too: the model does not say which size of picture it takes")
    channels = values["channels"]
    for name, given in (("mean", mean), ("std", std)):
        if given and len(given) not in (1, channels):
            raise LSEError(f"--{name} takes 1 or {channels} numbers here; got {len(given)}")
        if given:
            values[name] = tuple(given) * (channels if len(given) == 1 else 1)
    return validated(Preprocess, values, "--size, --mean and --std")


def create(
    name: str, kwargs: dict[str, Any], pretrained: bool, trust: bool, weights: Path | None = None
) -> Any:
    """The model that the command line names, in eval mode.

    Args:
        name: a timm model, a folder with a trained model, or "module:function".
        kwargs: keywords to make it with, typed by the user.
        pretrained: with timm's weights.
        trust: import and call a function.
        weights: a file of weights for a timm model.

    Raises:
        LSEError: a name or keywords that do not exist, or a function without trust.
    """
    from lse_core.card import attach
    from lse_core.timm_models import imagenet_names
    from lse_core.weights import load_weights
    from lse_dec.checkpoint import load
    from lse_dec.checkpoint.source import make, named

    if Path(name).is_dir():
        if kwargs or pretrained or weights:
            raise click.UsageError(
                "--model-set, --pretrained and --weights do not go with a folder, whose model has its weights"
            )
        return load(name, trust=trust)
    source = named(name, kwargs)
    if weights is not None and (pretrained or source.source != "timm"):
        raise click.UsageError("--weights goes with the name of a timm model, and not with --pretrained")
    # keywords on the command line are the user's own; what a function does is not
    model = make(source, trust=trust or source.source != "factory", pretrained=pretrained).eval()
    if weights is not None:
        load_weights(model, weights)
    if pretrained or weights is not None:
        attach(model, class_names=imagenet_names(model))
    return model


def _show_stages(name: str, model: Any, everything: bool, as_json: bool) -> None:
    from lse_dec.backbones import backbone_of
    from lse_dec.backbones.probe import probe

    backbone = backbone_of(model)
    seen = probe(model)
    seen["image"] = seen.pop("")  # the image is what the model as a whole takes
    stages = {stage.name: stage for stage in [backbone.image(model), *backbone.stages(model)]}
    if everything:
        stages.update({n: s.stage for n, s in seen.items() if n not in stages and s.stage})
    rows = [
        {
            "site": stage.name,
            "channels": stage.channels,
            "layout": type(stage.layout).__name__,
            "map": _map(stage, seen[n].shape),
            "input": list(seen[n].shape[1:]),
            "output": list(seen[n].output[1:]),
        }
        for n, stage in stages.items()
    ]
    family = type(backbone).__name__
    if as_json:
        click.echo(json.dumps({"model": name, "backbone": family, "stages": rows}, indent=2))
        return
    cells = [[_cell(v, "varies" if key == "map" else "several") for key, v in row.items()] for row in rows]
    print_table(rows[0], cells, title=f"Stages of {name} ({family})")
    click.echo(
        "map: rows x columns of the map that a warp would move. Choose stages with --site"
        + ("" if everything else "; --all shows every module that takes a map")
        + "."
    )


def _map(stage: Any, shape: tuple[int, ...]) -> list[int]:
    """Rows and columns of what enters the stage; [] where they follow the image at hand."""
    kind = type(stage.layout).__name__
    if kind in ("NCHW", "NHWC"):
        return list(shape[2:] if kind == "NCHW" else shape[1:3])
    return list(getattr(stage.layout, "grid", None) or ())


def _cell(value: Any, empty: str) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value)) or empty
    return str(value)
