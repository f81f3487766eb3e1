"""`lse export onnx`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.commands.common import print_table, working
from lse_export.commands import common

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lse_export.steps import StepChoice


def steps_or_auto(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Read a whole number of at least 1, or "auto"."""
    if value is None or value == "auto":
        return value
    if value.isdigit() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'auto' nor a whole number of at least 1", ctx, param)


@click.command()
@click.argument("model", type=common.PATH)
@click.option("--out", type=common.PATH, required=True, help="ONNX file to write.")
@click.option(
    "--steps",
    metavar="N|auto",
    callback=steps_or_auto,
    help="Solver steps to unroll, or 'auto' to measure how many are needed.  [default: the model's]",
)
@click.option(
    "--tolerance",
    type=float,
    default=1e-3,
    help="With --steps auto: largest deviation from the converged output, as a share of its range.",
)
@click.option("--opset", type=int, default=18, help="ONNX opset, 18 or later.")
@click.option(
    "--fixed-batch", type=click.IntRange(1), help="Export a fixed batch size instead of a dynamic one."
)
@click.option("--dynamic-size", is_flag=True, help="Leave height and width open, where the model takes any.")
@click.option(
    "--precision",
    default="float32",
    help="Type to compute in: float32, float16 (or fp16), or int8, which needs --calibration.",
)
@click.option("--half-io", is_flag=True, help="With float16: leave the outputs in float16, too.")
@click.option(
    "--calibration",
    multiple=True,
    type=common.PATH,
    help="With int8: picture or folder of pictures to calibrate on; repeat for several.",
)
@click.option(
    "--preprocess",
    nargs=2,
    type=click.IntRange(1),
    metavar="HEIGHT WIDTH",
    help="Take raw uint8 pictures of this size and prepare them in the graph.",
)
@click.option(
    "--picture-layout", default="nhwc", help="With --preprocess: layout of the pictures, nhwc or nchw."
)
@click.option(
    "--external-data", is_flag=True, help="Keep the weights in a file beside the graph, whatever their size."
)
@click.option("--warps", "with_warps", is_flag=True, help="Add each site's warp and residual as outputs.")
@common.force_option("file")
@common.size_option
@common.images_option
@common.trust_option
@common.json_option
def onnx(
    model: Path,
    out: Path,
    steps: int | str | None,
    tolerance: float,
    fixed_batch: int | None,
    dynamic_size: bool,
    calibration: tuple[Path, ...],
    force: bool,
    size: tuple[int, int] | None,
    images: tuple[Path, ...],
    trust: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write MODEL, a folder that `lse train`, `lse demo` or lse_dec.save wrote, as an ONNX file.

    The solver is unrolled into everyday operators. How pictures are prepared and what the classes are
    called goes into the file's metadata, so that `lse predict` and other readers know it. The residuals in
    the metadata, and with --steps auto the choice of steps, are measured on the images given.

    \b
    Example:
      lse export onnx runs/model --out model.onnx --steps auto --images photos/
      lse export onnx runs/model --out small.onnx --precision int8 --calibration photos/
      lse export onnx runs/model --out server.onnx --preprocess 480 640
      lse export onnx runs/resnet --out any.onnx --dynamic-size
    """
    from lse_core.atomic import check_target
    from lse_export.loading import images_for, load_model
    from lse_export.steps import choose_steps
    from lse_export.to_onnx import export_onnx

    check_target(out, force)  # before the work, not after
    with working(f"loading {model}"):
        adapted = load_model(model, trust=trust)
        example = images_for(adapted, size, images)
        ranges = images_for(adapted, size, calibration, limit=256) if calibration else None
    facts: dict[str, str] = {}
    count = steps if isinstance(steps, int) else None
    if steps == "auto":
        with working("measuring how few steps do"):
            choice = choose_steps(adapted, example, tolerance=tolerance)
        count, facts = choice.steps, {"lse.steps_choice": json.dumps(choice.as_dict())}
        _print_choice(choice)
    if fixed_batch is not None:
        example = example[[k % len(example) for k in range(fixed_batch)]]
    with working(f"exporting to {out}"):
        report = export_onnx(
            adapted,
            example,
            out,
            steps=count,
            dynamic_batch=fixed_batch is None,
            dynamic_size=dynamic_size,
            overwrite=force,
            metadata=facts,
            calibration=ranges,
            allow_plain=True,
            **options,
        )
    loss = _loss(report.path, adapted, ranges) if ranges is not None else None
    if as_json:
        values = {**vars(report), "path": str(report.path), "ops": dict(report.ops)}
        click.echo(json.dumps(values | ({"calibration": loss} if loss else {})))
        return
    click.echo(
        f"wrote {report.path}: opset {report.opset}, {report.nodes} nodes "
        f"({report.canonicalizer_nodes} of canonicalizers, {report.nodes_per_step:g} a solver step), "
        f"{report.seconds:.1f} s ({', '.join(f'{k} {v:.1f}' for k, v in report.phases.items())})"
    )
    if loss is not None:
        click.echo(
            f"  on {loss['images']} calibration images: same answer as the float32 model on "
            f"{loss['argmax_agreement']:.1%}, largest difference {loss['relative']:.2g} of the "
            "output's range"
        )
    for name in ("sites", "solver", "steps", "rule", "mode", "precision", "residual"):
        click.echo(f"  {name:<9} {report.metadata.get(f'lse.{name}', 'none')}")
    if dynamic_size:
        bounds = {axis: json.loads(report.metadata[f"lse.{axis}"]) for axis in ("height", "width")}
        sizes = [f"{axis} from {a}{f' to {b}' if b is not None else ''}" for axis, (a, b) in bounds.items()]
        click.echo(f"  size      {', '.join(sizes)}")
    more: list[str | Path] = ["--trust"] if trust else []
    if dynamic_size and size is not None:  # the file may not tell it
        more += ["--size", *map(str, size)]
    for path in calibration:  # the ranges hold for images like these
        more += ["--images", path]
    click.echo(f"next: lse export verify {shlex.join(map(str, [report.path, model, *more]))}")


def _loss(path: Path, model: nn.Module, images: Tensor) -> dict[str, float]:
    """What quantization costs: the file against the float32 model."""
    from lse_export.verification import verify

    found = verify(path, model, images, batch_sizes=(min(8, len(images)),), edges=False, throw=False)
    names = ("argmax_agreement", "relative", "max_abs_diff")
    return {"images": len(images), **{name: getattr(found, name) for name in names}}


def _print_choice(choice: StepChoice) -> None:
    """Print the table to stderr, so that --json stays readable by scripts."""
    rows = [
        (str(row.steps), f"{row.residual:.2e}", f"{row.deviation:.2e}", f"{row.agreement:.1%}",
         "chosen" if row.steps == choice.steps else "")
        for row in choice.rows
    ]  # fmt: skip
    print_table(("steps", "residual", "deviation", "same answer", ""), rows, stderr=True)
    click.echo(choice.summary(), err=True)
