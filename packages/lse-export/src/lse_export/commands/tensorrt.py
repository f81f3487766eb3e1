"""`lse export tensorrt`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lse_export.commands.common import json_option


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Engine to write.")
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=MIN:OPT:MAX",
    help="Sizes of an axis that varies; repeat for several.  [default: 1:8:32 for the batch]",
)
@click.option("--workspace", type=float, metavar="GIB", help="Scratch memory a layer may take.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="0 builds fast, 5 tries most.")
@click.option("--timing-cache", type=click.Path(path_type=Path), help="File of kernel timings to reuse.")
@click.option("--version-compatible", is_flag=True, help="For later releases of the same major, too.")
@click.option("--hardware-compatible", is_flag=True, help="For all GPUs since Ampere.")
@click.option("--refit", is_flag=True, help="Let weights be replaced later.")
@click.option("--tf32", is_flag=True, help="Let float32 products be computed in TF32.")
@click.option("--device", help="CUDA device to build on and for.  [default: the first]")
@click.option("--force", is_flag=True, help="Replace an existing engine.")
@json_option
def tensorrt(
    model: Path,
    out: Path,
    axes: tuple[str, ...],
    workspace: float | None,
    optimization_level: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: bool,
    refit: bool,
    tf32: bool,
    device: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Build a TensorRT engine of the ONNX file MODEL, for the GPU and the TensorRT at hand.

    Needs TensorRT 10 or 11 (pip install 'lse-export[tensorrt]') and an NVIDIA GPU. The engine has the
    types of the file: export in half precision for an engine in half precision. What the engine was built
    from and for lies beside it in OUT.json, and is checked when it is loaded.

    \b
    Example:
      lse export tensorrt model.onnx --out model.plan --axis batch=1:8:64 --timing-cache kernels.cache
    """
    from lse_export.tensorrt.build import build_engine
    from lse_export.tensorrt.options import BuildOptions
    from lse_export.tensorrt.profile import parse_axis
    from lse_export.tensorrt.progress import BuildProgress

    options = BuildOptions(
        workspace_gib=workspace,
        optimization_level=optimization_level,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refit=refit,
        tf32=tf32,
    )
    ranges = dict(parse_axis(text) for text in axes)
    with BuildProgress() as progress:
        built = build_engine(
            model,
            out,
            axes=ranges,
            options=options,
            timing_cache=timing_cache,
            device=device,
            overwrite=force,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps({"path": str(built.path), "seconds": built.seconds, **built.facts.as_dict()}))
        return
    facts = built.facts
    click.echo(f"wrote {built.path}: TensorRT {facts.tensorrt}, {facts.gpu}, {built.seconds:.1f} s")
    click.echo(f"  precision {facts.precision}")
    for name, (least, usual, largest) in facts.profile.items():
        click.echo(f"  {name} {least} to {largest}, tuned for {usual}")
    click.echo(f"  layers in {built.layers.name}, facts in {built.sidecar.name}")
    click.echo(f"next: lse export triton {model} models/ --plan {built.path}")
