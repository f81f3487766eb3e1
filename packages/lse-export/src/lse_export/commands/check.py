"""`lse export check`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lse_export.commands.common import json_option, working


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--target", "targets", multiple=True, metavar="NAME",
    help="tensorrt10, tensorrt11, tensorrt-rtx, onnxruntime or web; repeat for several.  [default: all]",
)  # fmt: skip
@click.option(
    "--parse", is_flag=True, help="Let the parsers of the TensorRT installed here read the file, too."
)
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path, targets: tuple[str, ...], parse: bool, as_json: bool) -> None:
    """Say whether runtimes will take an ONNX FILE, whoever made it.

    Looks at every node's operator, types and known traps, and says what to do about each problem.
    Ends with exit status 1 where a target would refuse the file or compute something else.

    --parse asks NVIDIA's own parser as well, of TensorRT or of TensorRT for RTX, whichever is installed
    and among the targets. It needs no GPU; what one parser takes says nothing of the others.

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
    ctx.exit(0 if all(report.ok for report in reports) else 1)
