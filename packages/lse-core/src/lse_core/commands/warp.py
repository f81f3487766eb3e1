"""`lse warp`: show what a random warp does to a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lse_core.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
AT_MOST_20 = click.FloatRange(1, 20, min_open=True)


def _number(flag: str, kind: click.ParamType, default: float, text: str) -> Callable[[F], F]:
    return click.option(flag, type=kind, default=default, show_default=True, help=text)


@click.command()
@click.argument("image", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=FOLDER, required=True, help="Folder for the files that are written.")
@_number("--segments", click.IntRange(1, 256), 4, "Number of linear segments along each axis.")
@_number("--ratio", AT_MOST_20, 4.0, "Slopes of the warp lie between 1/RATIO and RATIO.")
@click.option(
    "--distribution", default="log_uniform", show_default=True,
    help="Name of the distribution that the warp is drawn from.",
)  # fmt: skip
@_number("--strength", click.FloatRange(0, 1), 1.0, "How strong the warp is: 0 leaves the picture as it is.")
@_number("--seed", click.IntRange(0, 2**63 - 1), 0, "Seed of the random warp.")
@_number(
    "--size", click.IntRange(16, 4096), 448,
    "The picture is reduced to this length of its longest side, in pixels.",
)  # fmt: skip
@_number("--frames", click.IntRange(2, 200), 24, "Number of frames of the animation.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the numbers and the paths of the files as one JSON object."
)
def warp(image: Path, out: Path, seed: int, size: int, frames: int, as_json: bool, **drawn: Any) -> None:
    """Draw a random warp and show what it does to the picture IMAGE.

    Four files are written: warp.png shows the warped picture and its grid, round_trip.png the picture after
    warping and undoing the warp, and the error of that, maps.png the maps of both axes, and path.gif the way
    from the picture to the warped one.

    \b
    Example:
      lse warp photo.jpg --out runs/warp --ratio 3 --seed 7
    """
    import torch

    from lse_core import plot
    from lse_core.monotone import MonotoneMap
    from lse_core.resample import scale, unscale
    from lse_core.separable import SeparableWarp

    picture = _read(image, size)
    w = SeparableWarp.random(1, **drawn, generator=torch.Generator().manual_seed(seed))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}") from error
    back = unscale(scale(picture, w), w)
    text = "{distribution}, {segments} segments, ratio {ratio:g}, strength {strength:g}, seed {seed}"
    label = text.format(**drawn, seed=seed)
    paths = plot.save(
        [
            (plot.plot_warp(picture, w, title=label), "warp.png"),
            (plot.plot_round_trip(picture, w, title=label), "round_trip.png"),
            (plot.plot_map(MonotoneMap.stack([w.x, w.y]), title="x (map 0) and y (map 1)"), "maps.png"),
        ],
        out,
    )
    paths.append(out / "path.gif")
    plot.animate(picture, w, paths[-1], frames=frames)
    slopes = torch.cat([w.x.slopes, w.y.slopes])
    low, high = float(slopes.min()), float(slopes.max())
    rms = float((back - picture).square().mean().sqrt())
    numbers = {
        "size": list(picture.shape[2:]),
        "slopes": [low, high],
        "largest_displacement_px": float(w.distance(SeparableWarp.identity())) * (max(picture.shape[2:]) - 1),
        "round_trip_rms": rms,
        "files": [str(p) for p in paths],
    }
    if as_json:
        click.echo(json.dumps(numbers, indent=2))
        return
    click.echo(
        f"The slopes of the warp are {low:.3g} to {high:.3g}. Undoing the warp gives the picture back up to "
        f"an error of {rms:.4f} (root mean square of pixel values within [0, 1])."
    )
    for path in paths:
        click.echo(f"wrote {path}")


def _read(path: Path, size: int) -> Tensor:
    """The picture as (1, 3, H, W) within [0, 1], its longest side at most `size`."""
    import numpy as np
    import torch

    from lse_core.pictures import read_picture

    picture = read_picture(path)
    picture.thumbnail((size, size))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0).float() / 255.0
