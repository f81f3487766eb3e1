"""Figures of warps with matplotlib: maps, grids, round trips and an animation.

Needs the extra: `pip install lse-core[plot]`. Nothing here touches pyplot's global state, so it works
in threads, on servers and beside a user's own figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lse_core.errors import LSEError, OutputError, ShapeError
from lse_core.monotone import MonotoneMap
from lse_core.pointwise import PointwiseWarp
from lse_core.resample import scale, unscale
from lse_core.separable import SeparableWarp
from lse_core.triangular import TriangularWarp

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from PIL import Image
except ImportError as error:  # pragma: no cover - exercised by the wheel test
    raise LSEError("figures need matplotlib and pillow: pip install 'lse-core[plot]'") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["animate", "draw_grid", "plot_map", "plot_round_trip", "plot_warp", "to_array"]

Warp = SeparableWarp | PointwiseWarp


def plot_map(m: MonotoneMap, *, title: str = "") -> Figure:
    """Curves of a batch of maps (at most ten), their knots, and their slopes below."""
    figure = _figure(5, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for i in range(min(m.batch, 10)):
        x, y = (t[i].detach().double().cpu().numpy() for t in (m.knots, m.values))
        (line,) = above.plot(x, y, marker="o", markersize=3, label=f"map {i}")
        below.stairs(m.slopes[i].detach().double().cpu().numpy(), x, color=line.get_color(), baseline=None)
    above.set(ylabel="l(u)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title)
    below.set(xlabel="u", ylabel="slope")
    above.set_box_aspect(1)
    below.set_box_aspect(1 / 3)  # as wide as the one above
    below.axhline(1.0, color="0.8", linewidth=1)
    return figure


def draw_grid(
    axes: Axes, warp: Warp, shape: tuple[int, int], *, lines: int = 17, color: str = "white"
) -> None:
    """Draw, onto a picture of `shape` (height, width), where `scale` takes an even grid of lines.

    Args:
        axes: with the scaled picture on it, in pixel coordinates.
        warp: its first warp is drawn.
        shape: of the picture.
        lines: how many each way.
        color: of the lines.
    """
    t = torch.linspace(0.0, 1.0, 200, dtype=warp.dtype, device=warp.device)
    size = np.array([shape[1] - 1, shape[0] - 1])
    curves = []
    for fixed in torch.linspace(0.0, 1.0, lines, dtype=warp.dtype, device=warp.device):
        for points in (torch.stack([t, fixed.expand(200)], -1), torch.stack([fixed.expand(200), t], -1)):
            curves.append(warp[0](points)[0].detach().cpu().numpy() * size)
    axes.add_collection(LineCollection(curves, colors=color, linewidths=0.6, alpha=0.8))


def plot_warp(image: Tensor, warp: Warp, *, title: str = "") -> Figure:
    """A picture beside its scaled form, with the grid that shows how (Fig. 4 of the paper).

    Args:
        image: (1, C, H, W) or (C, H, W), C 1 or 3, within [0, 1].
        warp: its first warp is shown.
        title: over the figure.
    """
    image = _one(image)
    h, w = image.shape[2:]
    figure = _figure(9, 4.5 * min(1.5, max(0.5, h / w)) + 0.5)
    left, right = figure.subplots(1, 2)
    identity = SeparableWarp.identity(1, dtype=warp.dtype, device=warp.device)
    for axes, picture, shown, name in (
        (left, image, identity, "picture"),
        (right, scale(image, warp[0]), warp, "scaled"),
    ):
        _show(axes, picture, name)
        draw_grid(axes, shown, (h, w))
    figure.suptitle(title)
    return figure


def plot_round_trip(image: Tensor, warp: Warp, *, title: str = "") -> Figure:
    """A picture, scaled, brought back, and the error of the round trip with its root mean square."""
    image = _one(image)
    h, w = image.shape[2:]
    there = scale(image, warp[0])
    back = unscale(there, warp[0])
    error = (back - image).abs().amax(dim=1)
    rms = float((back - image).square().mean().sqrt())
    figure = _figure(9, 9 * min(1.5, max(0.5, h / w)) + 0.5)
    axes = figure.subplots(2, 2)
    for ax, picture, name in ((axes[0, 0], image, "picture"), (axes[0, 1], there, "scaled: S(I)")):
        _show(ax, picture, name)
    _show(axes[1, 0], back, "brought back: S⁻¹(S(I))")
    shown = axes[1, 1].imshow(error[0].detach().cpu().numpy(), cmap="magma", vmin=0.0)
    axes[1, 1].set_title(f"error, rms {rms:.4f}", fontsize=9)
    axes[1, 1].axis("off")
    figure.colorbar(shown, ax=axes[1, 1], fraction=0.04)
    figure.suptitle(title)
    return figure


def animate(
    image: Tensor,
    warp: SeparableWarp | TriangularWarp,
    path: str | Path,
    *,
    frames: int = 24,
    seconds: float = 3.0,
) -> None:
    """Write a GIF of the picture along the shortest path from the identity to the warp and back.

    Args:
        image: (1, C, H, W) or (C, H, W), C 1 or 3, within [0, 1].
        warp: its first warp is the far end.
        path: of the GIF.
        frames: pictures on the way there.
        seconds: there and back.

    Raises:
        OutputError: the file cannot be written.
    """
    image = _one(image)
    if frames < 2:
        raise ShapeError(f"an animation needs at least 2 frames; got {frames}")
    # slow at both ends: the eye follows an eased motion better
    shares = 0.5 - 0.5 * torch.cos(torch.linspace(0.0, torch.pi, frames))
    way = [warp[0].geodesic(float(t)) for t in shares]
    pictures = [_framed(scale(image, w)[0], w) for w in way]
    loop = pictures + pictures[-2:0:-1]
    try:
        loop[0].save(
            path,
            save_all=True,
            append_images=loop[1:],
            duration=max(20, int(1000 * seconds / len(loop))),
            loop=0,
        )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def _framed(picture: Tensor, warp: Warp) -> Image.Image:
    """A picture with the warp's grid drawn on it."""
    array = to_array(picture).copy()
    h, w = array.shape[:2]
    drawn = np.zeros((h, w), dtype=bool)
    lines = torch.linspace(0, 1, 17, dtype=warp.dtype, device=warp.device)
    dense = torch.linspace(0, 1, 4 * max(h, w), dtype=warp.dtype, device=warp.device)
    for points in (torch.cartesian_prod(lines, dense), torch.cartesian_prod(dense, lines)):
        at = (warp(points)[0] * torch.tensor([w - 1, h - 1]).to(points)).round().long().cpu()
        drawn[at[:, 1].clamp(0, h - 1), at[:, 0].clamp(0, w - 1)] = True
    array[drawn] = (0.5 * array[drawn] + 127).astype(np.uint8)
    return Image.fromarray(array)


def to_array(image: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(C, H, W) within [0, 1] as bytes (H, W, 3); values outside are clipped."""
    picture = image.detach().float().clamp(0.0, 1.0).mul(255.0).round().byte()
    if picture.shape[0] == 1:
        picture = picture.expand(3, -1, -1)
    return picture.permute(1, 2, 0).cpu().numpy()


def _one(image: Tensor) -> Tensor:
    image = image.unsqueeze(0) if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3):
        raise ShapeError(f"expected one picture (C, H, W) of 1 or 3 channels; got {tuple(image.shape)}")
    return image


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(to_array(image[0]))
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def save(figures: Sequence[tuple[Figure, str]], folder: Path, dpi: int = 130) -> list[Path]:
    """Write figures into a folder under their names; returns the paths. OutputError if it cannot be."""
    paths = []
    for figure, name in figures:
        path = folder / name
        try:
            figure.savefig(path, dpi=dpi)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}") from error
        paths.append(path)
    return paths
