"""`lse measure`: how much models change their mind when one object changes its size."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lse_core.commands.common import check_device, read_class_names, read_settings
from lse_core.errors import LSEError, OutputError
from lse_measure.commands.options import FILE, Levels, masks, preparation

if TYPE_CHECKING:
    from lse_measure.measurement import Measurement
    from lse_measure.subjects import Subject

__all__ = ["measure"]


@click.command()
@click.argument("models_and_pictures", nargs=-1, required=True, metavar="MODEL... PICTURES...")
@click.option(
    "--change",
    "changes",
    multiple=True,
    type=click.Choice(["objects", "warps", "rotation"]),
    help="What is done to pictures; repeatable.  [default: objects, where masks or boxes are, and warps]",
)
@masks
@click.option(
    "--labels",
    metavar="WHERE",
    help="True classes: folders (a folder for each class), or a CSV file with the columns file and label.",
)
@click.option(
    "--label-maps",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="For segmentors: folder of PNGs with the number of a class at each pixel, 255 for none.",
)
@click.option(
    "--factors",
    type=Levels(geometric=True),
    default="0.5:2:13",
    show_default=True,
    help="Factors by which objects are resized: a list, or LOW:HIGH:COUNT.",
)
@click.option(
    "--ratios",
    type=Levels(geometric=True),
    default="1,1.25,1.5,2,3,4",
    show_default=True,
    help="Bounds r of the warps, whose slopes lie within [1/r, r].",
)
@click.option(
    "--angles",
    type=Levels(),
    default="-90:90:13",
    show_default=True,
    help="Angles in degrees, counter-clockwise.",
)
@click.option(
    "--warps",
    type=click.IntRange(1, 1000),
    default=2,
    show_default=True,
    help="Number of random warps for each picture.",
)
@click.option(
    "--orbit",
    type=click.IntRange(0, 25),
    default=7,
    show_default=True,
    help="Number of factors along either axis of the NERO plot; 0 for none, which is faster.",
)
@click.option(
    "--pretrained",
    is_flag=True,
    help="Load timm's own weights for the names of timm models, which may need the network.",
)
@click.option(
    "--weights",
    type=FILE,
    multiple=True,
    help="Weights of a timm model, a safetensors file or a torch file of tensors; repeat for several "
    "models, in their order.",
)
@click.option(
    "--model-set",
    multiple=True,
    metavar="NAME=VALUE",
    help="Keyword of timm.create_model, such as num_classes=10.",
)
@preparation
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the warps and of the intervals.",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Views at once.")
@click.option("--device", default="cpu", show_default=True, help="Torch device, such as cuda.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/measure"),
    show_default=True,
    help="Folder of report.html and results.json.",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="Measure all anew. Without it, an interrupted command goes on where it stopped.",
)
@click.option("--csv", "csv_file", type=FILE, help="CSV file to write, a row for each case at each level.")
@click.option(
    "--fail-above",
    type=click.FloatRange(0),
    metavar="ERROR",
    help="Exit with status 1 if the InvE of any model under any change (of a segmentor, EquE under "
    "warps) is above this.",
)
@click.option(
    "--layers",
    is_flag=True,
    help="Also measure where torch models break: the Lie derivative of each layer, and sites to try first.",
)
@click.option("--force", is_flag=True, help="Replace an existing CSV file.")
@click.option(
    "--trust",
    is_flag=True,
    help="Import and call code that MODEL names. Use it only for code and folders you trust.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the contents of results.json, not the tables.")
def measure(
    models_and_pictures: tuple[str, ...],
    pretrained: bool,
    weights: tuple[Path, ...],
    model_set: tuple[str, ...],
    size: tuple[int, int] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    class_names: Path | None,
    changes: tuple[str, ...],
    factors: tuple[float, ...],
    ratios: tuple[float, ...],
    angles: tuple[float, ...],
    warps: int,
    orbit: int,
    seed: int,
    device: str,
    out: Path,
    fresh: bool,
    csv_file: Path | None,
    fail_above: float | None,
    trust: bool,
    as_json: bool,
    layers: bool,
    force: bool,
    **options: Any,
) -> None:
    """Measure how much each MODEL changes its mind when objects in PICTURES change their size.

    A MODEL is a folder with a trained or saved model, an ONNX file of any maker, the name of a timm model
    with --weights or --pretrained, or "module:function" with --trust. Nothing is trained. Each model's
    pictures are prepared as the model says; where it does not, give --mean, --std and, if it takes any size,
    --size.

    PICTURES are files and folders. Under the change "objects" each masked object is cut out (of a box, by
    GrabCut), its place is filled in, and it is resized about its centre. Under "warps" the whole picture is
    warped by random monotone maps, which needs no masks. Without --labels the answers are compared with the
    model's own answer to the unchanged picture.

    Tables are printed; report.html, results.json and what was measured so far are in the folder --out. The
    exit status is 0; it is 1 after an error and if --fail-above is exceeded, and 2 after a wrong option.

    \b
    Example:
      lse measure tf_efficientnet_lite0 photos/ --pretrained
      lse measure plain.onnx adapted.onnx photos/ --masks annotations.json --labels labels.csv
      lse measure runs/mine photos/ --change warps --orbit 0 --fail-above 0.1
      lse measure resnet18 photos/ --weights resnet18.safetensors --change rotation --angles 0:330:12
    """
    from lse_core.atomic import check_target
    from lse_core.settings import validated
    from lse_measure.sweeps import Plan, steps

    check_device(device)
    values = {"factors": factors, "ratios": ratios, "angles": angles, "warps": warps, "seed": seed}
    values["orbit"] = steps(0.5, 2, orbit, geometric=True) if orbit > 1 else (1.0,) * orbit
    plan = validated(Plan, values, "the options")
    if csv_file is not None:
        check_target(csv_file, force)
    _check_folder(out)
    modules, pictures = _split(models_and_pictures, pretrained, weights, read_settings(model_set), trust)
    names = None if class_names is None else read_class_names(class_names)
    subjects = _subjects(modules, size=size, mean=mean, std=std, class_names=names, device=device)
    if fresh:
        shutil.rmtree(out / "rows", ignore_errors=True)
    measured = _measured(subjects, pictures, plan, out, changes=changes or None, **options)
    if layers:
        targets = [one.target for one in modules]
        measured = _with_layers(measured, subjects, pictures, targets, seed)
    _written(measured, out, csv_file, as_json)
    above = [one for one in measured if fail_above is not None and (one.error or 0.0) > fail_above]
    for one in above:
        kind = "InvE" if one.task == "classification" else "EquE"
        click.echo(f"{kind} of {one.model} is {one.error:.4f}, above {fail_above:g}", err=True)
    if above:
        sys.exit(1)


class Named(NamedTuple):
    """A model of the command line: its name there, the module, and how `lse adapt` is told the same model."""

    name: str
    module: Any
    target: list[str]


def _split(
    arguments: Sequence[str],
    pretrained: bool,
    weights: Sequence[Path],
    settings: dict[str, Any],
    trust: bool,
) -> tuple[list[Named], list[str]]:
    """Models, which come first, and pictures; the first argument that is no model begins the pictures."""
    from lse_core.pictures import SUFFIXES
    from lse_measure.subjects import is_name, loaded, named

    models: list[Named] = []
    left = list(weights)
    rest = list(arguments)
    while rest:
        path = Path(rest[0])
        module: Any = None
        target = [rest[0]]
        if path.exists() and path.suffix.lower() not in SUFFIXES:
            module = loaded(path, trust=trust)
        if module is None and (not path.exists() or not models) and is_name(rest[0]):
            file = left.pop(0) if left and ":" not in rest[0] else None
            kept = ["--pretrained"] if pretrained else [] if file is None else ["--weights", str(file)]
            changed = [word for key, value in settings.items() for word in ("--model-set", f"{key}={value}")]
            target += ["--trust"] if ":" in rest[0] else [*kept, *changed]
            module = named(rest[0], pretrained=pretrained, weights=file, settings=settings, trust=trust)
        if module is None:
            break
        models.append(Named(rest.pop(0), module, target))
    if not models:
        raise LSEError(_no_model(arguments[0]))
    if left:
        raise click.UsageError(f"--weights {left[0]} goes with no model: it takes the name of a timm model")
    if not rest:
        raise click.UsageError("no pictures were given: name files or folders of pictures after the models")
    return models, rest


def _no_model(first: str) -> str:
    from lse_core.plugins import registry

    known = ", ".join(registry().names("loader")) or "none"
    if not Path(first).exists():
        return f"{first}: no such file or folder, and no timm model of this name; the models come first"
    return (
        f"{first} is no model that an installed package can load (loaders: {known}); the models come first, "
        "then the pictures"
    )


def _subjects(modules: Sequence[Named], **options: Any) -> list[Subject]:
    from lse_measure.subjects import subject

    names: list[str] = []
    for name in (one.name for one in modules):
        count = sum(known == name or known.startswith(f"{name} (") for known in names)
        names.append(f"{name} ({count + 1})" if count else name)
    return [subject(one.module, name, **options) for name, one in zip(names, modules, strict=True)]


def _measured(
    subjects: Sequence[Subject], pictures: Sequence[str], plan: Any, out: Path, **options: Any
) -> list[Measurement]:
    from lse_core.progress import Bars
    from lse_measure.running import measure_subjects

    try:
        with Bars() as bars:
            show = bars.add("measuring", lines=True).update
            return measure_subjects(subjects, pictures, plan, rows=out / "rows", on_picture=show, **options)
    except KeyboardInterrupt:
        click.echo("what was measured so far is kept; the same command goes on from there", err=True)
        raise


def _with_layers(
    measured: Sequence[Measurement],
    subjects: Sequence[Subject],
    pictures: Sequence[str],
    targets: Sequence[Sequence[str]],
    seed: int,
) -> list[Measurement]:
    from lse_core.progress import Bars
    from lse_measure.running import layers_of

    found = []
    with Bars() as bars:
        for one, own, target in zip(measured, subjects, targets, strict=True):
            show = bars.add(f"layers of {own.name}").update
            layers = layers_of(own, pictures, seed, target=target, on_batch=show)
            found.append(one.model_copy(update={"layers": layers}))
    return found


def _written(measured: Sequence[Measurement], out: Path, csv_file: Path | None, as_json: bool) -> None:
    from lse_core import __version__
    from lse_core.atomic import replacing
    from lse_measure.measurement import Results
    from lse_measure.report import write_report
    from lse_measure.tables import left_out, print_tables, write_csv

    text = Results(lse_core=__version__, measurements=tuple(measured)).to_json()
    with replacing(out / "results.json", overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
    if csv_file is not None:
        write_csv(measured, csv_file, overwrite=True)
    page = write_report(measured, out, command=["lse", *sys.argv[1:]])
    if as_json:
        click.echo(text, nl=False)
    else:
        print_tables(measured)
        speed = measured[0].pictures_per_second
        told = f" ({speed:.2f} pictures a second)" if speed else ""
        for one in measured:
            if one.layers is not None and one.layers.command is not None:
                click.echo(f"Sites to try first for {one.model}: {', '.join(one.layers.sites)}")
                click.echo(f"  {one.layers.command}")
        click.echo(f"Look at {page} in a browser next. The numbers are in {out / 'results.json'}{told}.")
    for one in measured:
        if told := left_out(one.counts):
            click.echo(f"{one.model}: {told}", err=True)
    for problem in dict.fromkeys(problem for one in measured for problem in one.problems):
        click.echo(f"  {problem}", err=True)


def _check_folder(out: Path) -> None:
    """Refuse a folder whose results.json another command wrote."""
    from lse_measure.measurement import read_results

    if (out / "results.json").exists():
        try:
            read_results(out / "results.json")
        except LSEError as error:
            raise OutputError(
                f"{out} holds other results than those of lse measure: choose another --out"
            ) from error
