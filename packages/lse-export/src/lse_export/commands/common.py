"""What the commands share: loading saved models, reading pictures, showing that work goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.plugins import registry
from lse_export.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

size_option = click.option(
    "--size",
    nargs=2,
    type=click.IntRange(1),
    metavar="HEIGHT WIDTH",
    help="Image size.  [default: the model's]",
)
images_option = click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Picture or folder of pictures; repeat for several.  [default: two made-up images]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def load_model(folder: Path) -> nn.Module:
    """Load what `lse_dec.save` wrote, or what a plugin's loader takes for its own.

    Raises:
        ExportError: no such folder, or lse-dec is absent.
    """
    for _, loader in registry().items("loader"):
        found: nn.Module | None = loader(folder)
        if found is not None:
            return found.eval()
    if not folder.is_dir():
        raise ExportError(f"{folder}: no such folder; give the folder that lse_dec.save wrote")
    if find_spec("lse_dec") is None:
        raise ExportError("saved models are loaded by lse-dec, which is not installed: pip install lse-dec")
    load: Any = getattr(import_module("lse_dec"), "load", None)
    if load is None:
        raise ExportError("this lse-dec cannot load saved models; upgrade it: pip install --upgrade lse-dec")
    model: nn.Module = load(folder)
    return model.eval()


def images_for(
    model: nn.Module,
    size: tuple[int, int] | None,
    images: tuple[Path, ...],
    limit: int = 64,
    file: Path | None = None,
) -> Tensor:
    """A batch as `model` takes it: the pictures given (at most `limit`), or two made-up images.

    Given an ONNX `file` that prepares pictures itself, what that takes: raw ones.
    """
    from lse_export.images import picture_files, preparation_of, read_images, sample_images
    from lse_export.preprocess import raw_pictures, recipe_in

    recipe = recipe_in(file) if file is not None else None
    if recipe is not None:
        return raw_pictures(picture_files(images)[:limit] if images else [], recipe)
    preparation = preparation_of(model, size)
    if not images:
        return sample_images(preparation)
    return read_images(picture_files(images)[:limit], preparation)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that work goes on, so that stdout stays readable by scripts."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
