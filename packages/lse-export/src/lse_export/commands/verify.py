"""`lse export verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_export.commands.common import (
    images_option,
    json_option,
    print_table,
    size_option,
    trust_option,
    working,
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--batch-sizes", multiple=True, type=click.IntRange(1),
    help="Images a call; repeat for several.  [default: 1 and 5, or what the file takes]",
)  # fmt: skip
@click.option("--tolerance", type=float, help="Of the output's range.  [default: by the file's precision]")
@click.option("--provider", default="cpu", show_default=True, help="cpu, cuda or tensorrt.")
@size_option
@images_option
@trust_option
@json_option
def verify(
    file: Path,
    model: Path,
    batch_sizes: tuple[int, ...],
    size: tuple[int, int] | None,
    images: tuple[Path, ...],
    trust: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the ONNX FILE with the MODEL it was exported from, a folder that `lse train`,
    `lse demo` or lse_dec.save wrote.

    Compares on the images given and on edge cases, at every batch size. Ends with exit status 1
    where the two differ. Of files with 8-bit values only the images given decide, which should be like those
    that the file was calibrated on.

    \b
    Example:
      lse export verify model.onnx runs/model --images photos/ --batch-sizes 1 --batch-sizes 7
    """
    from lse_export.loading import check_preprocess, images_for, load_model, shape_of
    from lse_export.verification import verify as compare

    with working(f"loading {model}"):
        adapted = load_model(model, trust=trust)
        check_preprocess(adapted, file)
        fixed, own = shape_of(file)
        inputs = images_for(adapted, size or own, images, file=file, skip=True)
    with working(f"comparing {file}"):
        report = compare(
            file,
            adapted,
            inputs,
            batch_sizes=batch_sizes or ((1, 5) if fixed is None else (fixed,)),
            throw=False,
            **options,
        )
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        rows = [
            (row.output, row.inputs, str(row.batch_size), f"{row.max_abs_diff:.2e}", f"{row.relative:.2e}",
             f"{row.mean_abs_diff:.2e}", f"{row.argmax_agreement:.1%}", row.verdict)
            for row in report.rows
        ]  # fmt: skip
        head = ("output", "inputs", "batch", "max diff", "of range", "mean diff", "argmax", "verdict")
        print_table(head, rows)
        click.echo(f"ran on {report.providers[0]}")
    click.echo(report.summary(), err=True)
    click.get_current_context().exit(0 if report.ok else 1)
