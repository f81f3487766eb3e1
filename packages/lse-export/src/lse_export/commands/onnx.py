"""`lse export onnx`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lse_export.commands.common import (
    images_for,
    images_option,
    json_option,
    load_model,
    size_option,
    working,
)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="ONNX file to write.")
@click.option("--steps", type=click.IntRange(1), help="Solver steps to unroll.  [default: the model's]")
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX opset, 18 or later.")
@click.option("--fixed-batch", type=click.IntRange(1), help="Fix the batch size instead of leaving it open.")
@click.option("--warps", is_flag=True, help="Add each site's warp and residual as outputs.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@size_option
@images_option
@json_option
def onnx(
    model: Path,
    out: Path,
    steps: int | None,
    opset: int,
    fixed_batch: int | None,
    warps: bool,
    force: bool,
    size: tuple[int, int] | None,
    images: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write the adapted MODEL, a folder that lse_dec.save wrote, as an ONNX file.

    The solver is unrolled into everyday operators. The residuals in the file's metadata are measured
    on the images given.

    \b
    Example:
      lse export onnx runs/model --out model.onnx --steps 4 --images photos/
    """
    from lse_export.atomic import check_target
    from lse_export.to_onnx import export_onnx

    check_target(out, force)  # before the work, not after
    with working(f"loading {model}"):
        adapted = load_model(model)
        example = images_for(adapted, size, images)
    if fixed_batch is not None:
        example = example[[k % len(example) for k in range(fixed_batch)]]
    with working(f"exporting to {out}"):
        report = export_onnx(
            adapted,
            example,
            out,
            steps=steps,
            opset=opset,
            dynamic_batch=fixed_batch is None,
            overwrite=force,
            with_warps=warps,
        )
    if as_json:
        click.echo(json.dumps({**vars(report), "path": str(report.path), "ops": dict(report.ops)}))
        return
    click.echo(
        f"wrote {report.path}: opset {report.opset}, {report.nodes} nodes "
        f"({report.canonicalizer_nodes} of canonicalizers), {report.seconds:.1f} s"
    )
    for key in ("lse.sites", "lse.solver", "lse.steps", "lse.rule", "lse.mode", "lse.residual"):
        click.echo(f"  {key.removeprefix('lse.'):<9} {report.metadata.get(key, 'none')}")
    click.echo(f"next: lse export verify {report.path} {model}")
