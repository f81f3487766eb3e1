"""`lse export tensorrt` and `lse export triton`: what a file becomes where it is served."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from lse_core.commands.common import working
from lse_export.commands import common


@click.command()
@click.argument("model", type=common.PATH)
@click.option("--out", type=common.PATH, required=True, help="File to write the engine to.")
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=MIN:OPT:MAX",
    help="Smallest, usual and largest size of a dynamic axis; repeatable.  [default: batch=1:8:32]",
)
@click.option(
    "--flavour",
    default="tensorrt",
    help="tensorrt builds for the GPU at hand; rtx builds for GeForce and RTX GPUs, and needs none.",
)
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="N.N",
    help="With rtx: what to build for, such as 8.6; repeat for several.  [default: all from 8.0 on]",
)
@click.option(
    "--workspace", "workspace_gib", type=float, metavar="GIB", help="Scratch memory for a layer, in GiB."
)
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    help="Effort of the builder: 0 builds fast, 5 searches longest.",
)
@click.option("--timing-cache", type=common.PATH, help="File of kernel timings to reuse.")
@click.option("--version-compatible", is_flag=True, help="Let later releases of this major load it.")
@click.option("--hardware-compatible", is_flag=True, help="Let all GPUs since Ampere load it.")
@click.option("--refit", is_flag=True, help="Let the weights be replaced later.")
@click.option("--tf32", is_flag=True, help="Let float32 products be computed in TF32.")
@click.option("--device", help="CUDA device to build on, and to build for.  [default: the first]")
@common.force_option("engine")
@common.json_option
def tensorrt(
    model: Path, out: Path, axes: tuple[str, ...], force: bool, as_json: bool, **options: Any
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

    settings = {field.name: options.pop(field.name) for field in fields(BuildOptions)}
    progress = BuildProgress()
    with progress:
        built = build_engine(
            model,
            out,
            axes=dict(parse_axis(text) for text in axes),
            options=BuildOptions(**settings),
            overwrite=force,
            progress=progress,
            **options,
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
@click.argument("file", type=common.PATH)
@click.argument("repository", type=common.PATH)
@click.option("--name", help="The model's name in the repository.  [default: the file's]")
@click.option("--version", type=click.IntRange(1), default=1, help="The model's version.")
@click.option("--plan", type=common.PATH, help="TensorRT engine, built from FILE, to serve instead of FILE.")
@click.option("--max-batch-size", type=click.IntRange(1), help="Largest batch.  [default: 32, or the plan's]")
@click.option(
    "--queue-delay",
    "max_queue_delay_us",
    type=click.IntRange(0),
    default=100,
    help="How long a request may wait for others, in microseconds.",
)
@click.option("--kind", default="auto", help="Where instances run: cpu, gpu or auto.")
@click.option("--instances", type=click.IntRange(1), default=1, help="Instances side by side.")
@click.option("--warmup/--no-warmup", default=True, help="Run a random batch before reporting ready.")
@common.json_option
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
