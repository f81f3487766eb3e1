"""`lse export verify` and `lse export check`: is a file right, and will a runtime take it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_core.commands.common import print_table, working
from lse_export.commands import common


@click.command()
@click.argument("file", type=common.PATH)
@click.argument("model", type=common.PATH)
@click.option(
    "--batch-sizes", multiple=True, type=click.IntRange(1),
    help="Images in each call; repeat for several.  [default: 1 and 5, or what the file takes]",
)  # fmt: skip
@click.option(
    "--tolerance", type=float, help="Largest difference, of the output's range.  [default: by the precision]"
)
@click.option("--provider", default="cpu", help="Where FILE runs: cpu, cuda or tensorrt.")
@common.size_option
@common.images_option
@common.trust_option
@common.json_option
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

    They are compared on the given images and on edge cases, at every batch size. The exit status is 1 if
    they differ. For int8 files only the given images count; they should be similar to those that the file was
    calibrated on.

    \b
    Example:
      lse export verify model.onnx runs/model --images photos/ --batch-sizes 1 --batch-sizes 7
    """
    from lse_export.loading import check_preprocess, images_for, load_model
    from lse_export.metadata import facts_of
    from lse_export.verification import verify as compare

    with working(f"loading {model}"):
        adapted = load_model(model, trust=trust)
        check_preprocess(adapted, file)
        fixed, own = facts_of(file).image_shape()
        inputs = images_for(adapted, size or own, images, file=file)
    with working(f"comparing {file}"):
        sizes = batch_sizes or ((1, 5) if fixed is None else (fixed,))
        report = compare(file, adapted, inputs, batch_sizes=sizes, throw=False, **options)
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


@click.command()
@click.argument("file", type=common.PATH)
@click.option(
    "--target", "targets", multiple=True, metavar="NAME",
    help="tensorrt10, tensorrt11, tensorrt-rtx, onnxruntime or web; repeat for several.  [default: all]",
)  # fmt: skip
@click.option(
    "--parse", is_flag=True, help="Let the parser of the TensorRT that is installed read the file, too."
)
@common.json_option
def check(file: Path, targets: tuple[str, ...], parse: bool, as_json: bool) -> None:
    """Check whether TensorRT, ONNX Runtime and browsers can run any ONNX FILE.

    Looks at every node's operator, types and known traps, and says what to do about each problem.
    The exit status is 1 if a target would refuse the file or compute something else.

    --parse asks NVIDIA's own parser as well, of TensorRT or of TensorRT for RTX, whichever is installed
    and among the targets. It needs no GPU. A file that one parser accepts may be refused by the others.

    \b
    Example:
      lse export check model.onnx --target tensorrt10 --target web
      lse export check model.onnx --target tensorrt-rtx --parse
    """
    from lse_export.gate import TARGETS
    from lse_export.gate import check as inspect

    with working(f"checking {file}"):
        reports = [inspect(file, target) for target in targets or TARGETS]
        if parse:
            from lse_export.tensorrt.network import parsed_reports

            reports = parsed_reports(reports, strict=bool(targets))
    if as_json:
        click.echo(json.dumps([report.as_dict() for report in reports]))
    else:
        for report in reports:
            verdict = "ok" if report.ok else "refused"
            by = f", read by {report.parser}" if report.parser else ""
            click.echo(f"{report.target}: {verdict} ({report.nodes} nodes, opset {report.opset}{by})")
            for problem in report.problems:
                click.echo(f"  {problem}")
            click.echo(f"  table: {report.source}, {report.date}")
    click.get_current_context().exit(0 if all(report.ok for report in reports) else 1)
