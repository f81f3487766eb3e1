"""`lse play`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from lse_core.commands.common import read_class_names
from lse_measure.commands.options import masks, preparation

__all__ = ["play"]

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("models_and_pictures", nargs=-1, required=True, metavar="MODEL.onnx... PICTURES...")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs/play"),
    show_default=True,
    help="Folder to write; index.html is in it.",
)
@masks
@preparation
@click.option(
    "--runtime",
    type=FOLDER,
    help="Folder of the npm package onnxruntime-web.  [default: in node_modules here or above]",
)
@click.option(
    "--serve/--no-serve", default=True, show_default=True, help="Show the folder until interrupted."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to serve at on 127.0.0.1; 0 takes a free one.",
)
def play(
    models_and_pictures: tuple[str, ...],
    out: Path,
    masks: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int] | None,
    class_names: Path | None,
    runtime: Path | None,
    serve: bool,
    port: int,
) -> None:
    """Make a page on which one changes PICTURES by hand and sees live what each MODEL answers.

    MODELs are ONNX files of classifiers, of any maker; name the plain model and the adapted one to compare
    them. Files written by `lse export onnx --warps` also show the warp that each canonicalizer found, the
    canonical form and the residual. Objects that masks or boxes tell of can be resized.

    The folder --out holds static files that any web server can show, offline too: nothing is fetched. The
    models run in the browser by ONNX Runtime Web, which `npm install onnxruntime-web` installs.

    \b
    Example:
      lse export onnx runs/adapted --out adapted.onnx --warps
      lse play plain.onnx adapted.onnx photos/
      lse play theirs.onnx photos/cup.jpg --mean 0.5 --std 0.5 --no-serve --out site/play
    """
    from lse_core.progress import Bars
    from lse_measure.play import find_runtime, serving, write_playground

    models, pictures = split(models_and_pictures)
    found = find_runtime(runtime)
    names = None if class_names is None else read_class_names(class_names)
    with Bars() as bars:
        written = write_playground(
            models,
            pictures,
            out,
            runtime=found,
            masks=masks,
            mean=mean,
            std=std,
            size=size,
            class_names=names,
            on_picture=bars.add("preparing pictures").update,
        )
    for problem in written.problems:
        click.echo(f"left out: {problem}", err=True)
    click.echo(f"wrote {out}: {len(models)} models and {len(written.pictures)} pictures")
    if not serve:
        click.echo(f"show it by any web server, such as python -m http.server --directory {out}")
        return
    with serving(out, port) as address:
        click.echo(f"open {address} in a browser; Ctrl-C ends this")
        try:
            while True:
                _wait()
        except KeyboardInterrupt:
            click.echo("stopped")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The models, which come first, and the pictures.

    Raises:
        UsageError: there are none of either.
    """
    first = next(
        (k for k, name in enumerate(arguments) if not name.lower().endswith(".onnx")), len(arguments)
    )
    models, pictures = list(arguments[:first]), list(arguments[first:])
    if not models:
        hint = (
            f": write its model as ONNX first, lse export onnx {arguments[0]} --out model.onnx --warps"
            if (Path(arguments[0]) / "config.json").is_file()
            else "; models come first"
        )
        raise click.UsageError(f"{arguments[0]} is no ONNX file{hint}")
    if not pictures:
        raise click.UsageError("no pictures were given: name files or folders of pictures after the models")
    return models, pictures


def _wait() -> None:
    import time

    time.sleep(3600)
