"""`lse predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lse_export.commands.common import json_option, working
from lse_export.commands.providers import tensorrt_options

if TYPE_CHECKING:
    from lse_export.runtime import TensorrtOptions


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes to name.")
@click.option("--provider", default="cpu", show_default=True, help="cpu, cuda or tensorrt.")
@click.option("--mean", multiple=True, type=float, help="Once a channel.  [default: the file's]")
@click.option("--std", multiple=True, type=float, help="Once a channel.  [default: the file's]")
@tensorrt_options
@json_option
def predict(
    file: Path,
    images: tuple[Path, ...],
    top: int,
    provider: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tensorrt: TensorrtOptions | None,
    as_json: bool,
) -> None:
    """Classify pictures with an exported ONNX FILE.

    IMAGES are pictures or folders of them.

    \b
    Example:
      lse predict model.onnx photo.jpg
      lse predict model.onnx photos/ --top 1 --json
    """
    from lse_export.images import picture_files
    from lse_export.predict import predict as classify

    files = picture_files(images)
    with working(f"classifying {len(files)} pictures"):
        found = classify(
            file, files, top=top, provider=provider, tensorrt=tensorrt, mean=mean or None, std=std or None
        )
    if as_json:
        click.echo(json.dumps([{**vars(p), "file": str(p.file)} for p in found]))
        return
    for p in found:
        best = ", ".join(f"{c} {share:.1%}" for c, share in zip(p.classes, p.probabilities, strict=True))
        click.echo(f"{p.file}: {best}")
