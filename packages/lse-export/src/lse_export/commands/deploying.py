"""`lse export tensorrt` and `lse export triton`: what a file becomes where it is served."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from lse_export.commands.common import force_option, json_option, working


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
@click.option(
    "--flavour",
    default="tensorrt",
    show_default=True,
    help="tensorrt, for the GPU at hand, or rtx, for GeForce and RTX GPUs, built without one.",
)
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="N.N",
    help="With rtx: build for these, such as 8.6; repeat for several.  [default: all known from 8.0 on]",
)
@click.option(
    "--workspace", "workspace_gib", type=float, metavar="GIB", help="Scratch memory a layer may take."
)
@click.option("--optimization-level", type=click.IntRange(0, 5), help="0 builds fast, 5 tries most.")
@click.option("--timing-cache", type=click.Path(path_type=Path), help="File of kernel timings to reuse.")
@click.option("--version-compatible", is_flag=True, help="For later releases of the same major, too.")
@click.option("--hardware-compatible", is_flag=True, help="For all GPUs since Ampere.")
@click.option("--refit", is_flag=True, help="Let weights be replaced later.")
@click.option("--tf32", is_flag=True, help="Let float32 products be computed in TF32.")
@click.option("--device", help="CUDA device to build on and for.  [default: the first]")
@force_option("engine")
@json_option
def tensorrt(
    model: Path,
    out: Path,
    axes: tuple[str, ...],
    flavour: str,
    compute_capabilities: tuple[str, ...],
    timing_cache: Path | None,
    device: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Build a TensorRT engine of the ONNX file MODEL.

    Flavour tensorrt is TensorRT 10 or 11 (pip install 'lse-export[tensorrt]'): it needs an NVIDIA GPU and
    builds for that. Flavour rtx is TensorRT for RTX (pip install 'lse-export[rtx]'): it needs no GPU and
    builds for GeForce and RTX GPUs, which finish the kernels when they load the engine. The engine has the
    types of the file: export in half precision for an engine in half precision. What the engine was built
    from and for lies beside it in OUT.json, and is checked when it is loaded.

    \b
    Example:
      lse export tensorrt model.onnx --out model.plan --axis batch=1:8:64 --timing-cache kernels.cache
      lse export tensorrt model.onnx --out model.plan --flavour rtx --compute-capability 8.6
    """
    from lse_export.tensorrt.build import BuildOptions, build_engine
    from lse_export.tensorrt.library import BuildProgress, flavour_of
    from lse_export.tensorrt.sidecar import parse_axis

    progress = BuildProgress()
    with progress:
        built = build_engine(
            model,
            out,
            axes=dict(parse_axis(text) for text in axes),
            options=BuildOptions(**options),
            timing_cache=timing_cache,
            device=device,
            overwrite=force,
            progress=progress,
            flavour=flavour,
            compute_capabilities=compute_capabilities,
        )
    if as_json:
        made = {"path": str(built.path), "seconds": built.seconds, "layers": built.layer_count}
        click.echo(json.dumps(made | built.facts.plain()))
        return
    facts = built.facts
    title = flavour_of(facts.flavour).title
    click.echo(
        f"wrote {built.path}: {title} {facts.tensorrt}, {facts.gpu or 'no GPU'}, {built.seconds:.1f} s"
    )
    if facts.compute_capabilities:
        click.echo(f"  for compute capabilities {', '.join(facts.compute_capabilities)}")
    click.echo(f"  precision {facts.precision}")
    for name, (least, usual, largest) in facts.profile.items():
        click.echo(f"  {name} {least} to {largest}, tuned for {usual}")
    size, count = built.path.stat().st_size / 2**20, built.layer_count
    click.echo(f"  {size:.1f} MiB, {count} layers in {built.layers.name}, facts in {built.sidecar.name}")
    if facts.flavour == "tensorrt":
        click.echo(
            f"next: lse export triton {shlex.join([str(model), 'models/', '--plan', str(built.path)])}"
        )
    else:
        click.echo(f"next: lse_export.Engine('{built.path}') runs it, where the GPU is")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name in the repository.  [default: the file's]")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True, help="Its version.")
@click.option("--plan", type=click.Path(path_type=Path), help="TensorRT engine of FILE to serve instead.")
@click.option(
    "--max-batch-size", type=click.IntRange(1), help="Largest.  [default: 32, or the plan's largest]"
)
@click.option(
    "--queue-delay",
    "max_queue_delay_us",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Microseconds a request may wait for others.",
)
@click.option("--kind", default="auto", show_default=True, help="cpu, gpu or auto: where instances run.")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option("--warmup/--no-warmup", default=True, help="Run a random batch before reporting ready.")
@json_option
def triton(file: Path, repository: Path, as_json: bool, **options: Any) -> None:
    """Write the ONNX FILE into REPOSITORY, a model repository of Triton Inference Server.

    \b
    Example:
      lse export triton model.onnx models/ --name digits --max-batch-size 16
    """
    from lse_export.triton import write_triton

    with working(f"writing {repository}"):
        written = write_triton(file, repository, **options)
    if as_json:
        click.echo(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in vars(written).items()}))
        return
    click.echo(f"wrote {written.model} and {written.folder / 'config.pbtxt'}")
    click.echo(f"next: tritonserver {shlex.quote(f'--model-repository={repository}')}")
