"""`lse warp`: show what a random warp does to a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lse_core.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from lse_core.separable import SeparableWarp
    from lse_core.triangular import TriangularWarp

FOLDER = click.Path(file_okay=False, path_type=Path)
AT_MOST_20 = click.FloatRange(1, 20, min_open=True)


@click.command()
@click.argument("image", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=FOLDER, required=True, help="Folder for the files that are written.")
@click.option(
    "--warp",
    "family",
    type=click.Choice(["separable", "triangular"]),
    default="separable",
    help="Family of the warp. A triangular one resizes every column (or row) on its own.",
)
@click.option(
    "--order",
    type=click.Choice(["xy", "yx"]),
    help="Of a triangular warp: xy (the default) resizes each column on its own, yx each row.",
)
@click.option(
    "--segments", type=click.IntRange(1, 256), default=4, help="Number of linear segments along each axis."
)
@click.option(
    "--ratio", type=AT_MOST_20, default=4.0, help="Slopes of the warp lie between 1/RATIO and RATIO."
)
@click.option(
    "--distribution", default="log_uniform", help="Name of the distribution that the warp is drawn from."
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="How strong the warp is: 0 leaves the picture as it is.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Seed of the random warp.")
@click.option(
    "--size",
    type=click.IntRange(16, 4096),
    default=448,
    help="The picture is reduced to this length of its longest side, in pixels.",
)
@click.option("--frames", type=click.IntRange(2, 200), default=24, help="Number of frames of the animation.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the numbers and the paths of the files as one JSON object."
)
def warp(
    image: Path,
    out: Path,
    family: str,
    order: str | None,
    seed: int,
    size: int,
    frames: int,
    as_json: bool,
    **drawn: Any,
) -> None:
    """Draw a random warp and show what it does to the picture IMAGE.

    Four files are written: warp.png shows the warped picture and its grid, round_trip.png the picture after
    warping and undoing the warp, and the error of that, maps.png the maps of both axes (for a triangular warp
    that of the first axis and those of the columns), and path.gif the way from the picture to the warped one.

    \b
    Example:
      lse warp photo.jpg --out runs/warp --ratio 3 --seed 7
      lse warp photo.jpg --out runs/columns --warp triangular --order xy
    """
    import torch

    from lse_core import plot
    from lse_core.monotone import MonotoneMap
    from lse_core.resample import scale, unscale
    from lse_core.separable import SeparableWarp
    from lse_core.triangular import TriangularWarp

    if order and family != "triangular":
        raise click.UsageError("--order is of triangular warps; add --warp triangular")
    picture = _read(image, size)
    generator = torch.Generator().manual_seed(seed)
    w: SeparableWarp | TriangularWarp
    if family == "triangular":
        w = TriangularWarp.random(1, order=order or "xy", **drawn, generator=generator)
        maps, names = [w.first, w.columns], "first axis (map 0) and columns (maps 1 to 4)"
        slopes = w.slope_bounds
    else:
        w = SeparableWarp.random(1, **drawn, generator=generator)
        maps, names = [w.x, w.y], "x (map 0) and y (map 1)"
        slopes = torch.cat([w.x.slopes, w.y.slopes])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}") from error
    back = unscale(scale(picture, w), w)
    text = (
        "{family}, {distribution}, {segments} segments, ratio {ratio:g}, strength {strength:g}, seed {seed}"
    )
    label = text.format(**drawn, family=family, seed=seed)
    paths = plot.save(
        [
            (plot.plot_warp(picture, w, title=label), "warp.png"),
            (plot.plot_round_trip(picture, w, title=label), "round_trip.png"),
            (plot.plot_map(MonotoneMap.stack(maps), title=names), "maps.png"),
        ],
        out,
    )
    paths.append(out / "path.gif")
    plot.animate(picture, w, paths[-1], frames=frames)
    low, high = float(slopes.min()), float(slopes.max())
    rms = float((back - picture).square().mean().sqrt())
    numbers = {
        "warp": family,
        "size": list(picture.shape[2:]),
        "slopes": [low, high],
        "largest_displacement_px": _largest(w, picture),
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


def _largest(w: SeparableWarp | TriangularWarp, picture: Tensor) -> float:
    """How far the pixel that moves the farthest moves, in pixels."""
    import torch

    h, wide = picture.shape[2:]
    points = torch.cartesian_prod(torch.linspace(0, 1, wide), torch.linspace(0, 1, h))
    away = (w(points)[0] - points) * torch.tensor([wide - 1, h - 1])
    return float(away.norm(dim=-1).max())


def _read(path: Path, size: int) -> Tensor:
    """The picture as (1, 3, H, W) within [0, 1], its longest side at most `size`."""
    import numpy as np
    import torch

    from lse_core.pictures import read_picture

    picture = read_picture(path)
    picture.thumbnail((size, size))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0).float() / 255.0
