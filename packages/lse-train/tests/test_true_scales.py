"""The best warps of a family for known boxes: exact where the family can, least squares where it cannot."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from lse_core import SeparableWarp, TriangularWarp
from lse_core.errors import LSEError, ShapeError, UnknownNameError
from lse_data import build_digits
from lse_train.true_scales import best_warp, build_true_scales, misfit, undo, unscaled_boxes

ROW = torch.tensor([[0.05, 0.3, 0.25, 0.6], [0.35, 0.2, 0.6, 0.5], [0.7, 0.4, 0.95, 0.7]])
RESIZED = torch.tensor([[0.03, 0.35, 0.13, 0.5], [0.25, 0.1, 0.68, 0.6], [0.72, 0.45, 0.82, 0.6]])


def turned(boxes: Tensor) -> Tensor:
    return boxes[..., [1, 0, 3, 2]]


def drawn(boxes: Tensor, size: int = 160) -> Tensor:
    """A picture (1, 1, size, size) of soft-edged discs, a ring inside each, that fill the boxes (n, 4)."""
    u = torch.linspace(0, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(u, u, indexing="ij")
    picture = torch.zeros(size, size, dtype=torch.float64)
    for x0, y0, x1, y1 in boxes.double().tolist():
        across, down = 2 * (x - x0) / (x1 - x0) - 1, 2 * (y - y0) / (y1 - y0) - 1
        radius = (across.square() + down.square()).sqrt()
        picture += (1 - radius).clamp_min(0) * (1 + torch.cos(9 * radius))
    return picture[None, None].float()


def test_triangular_warps_give_each_object_of_a_row_back() -> None:
    both = torch.stack([ROW, ROW.flip(0)]), torch.stack([RESIZED, RESIZED.flip(0)])
    warp = best_warp(*both)
    assert isinstance(warp, TriangularWarp)
    corners = warp(both[0].unflatten(-1, (2, 2)).flatten(1, 2)).unflatten(1, (3, 2)).flatten(2)
    torch.testing.assert_close(corners, both[1], rtol=0, atol=1e-5)
    assert float(misfit(warp, *both).max()) < 1e-5  # inside the boxes as at their corners
    separable = best_warp(*both, "separable")
    assert isinstance(separable, SeparableWarp)
    assert float(misfit(separable, *both).min()) > 0.02
    assert float(misfit(best_warp(*both, order="yx"), *both).min()) > 0.02
    # the same in columns, where the other order does it
    column = turned(both[0]), turned(both[1])
    assert float(misfit(best_warp(*column, order="yx"), *column).max()) < 1e-5


@pytest.mark.parametrize("turn", [False, True], ids=["row", "column"])
def test_pictures_come_back(turn: bool) -> None:
    before, after = (turned(b) if turn else b for b in (ROW, RESIZED))
    wanted, given = drawn(before), drawn(after)
    error = {f: (undo(given, before[None], after[None], f) - wanted) for f in ("separable", "triangular")}
    rms = {name: float(e.square().mean().sqrt()) for name, e in error.items()}
    unchanged = float((given - wanted).square().mean().sqrt())
    # what is left is interpolation: 19 pixels were drawn for 32
    assert rms["triangular"] < 0.15 * unchanged
    assert rms["triangular"] < 0.25 * rms["separable"]


def test_what_separable_warps_can_do_is_found() -> None:
    before = torch.tensor([[[0.05, 0.05, 0.3, 0.3], [0.4, 0.4, 0.6, 0.6], [0.7, 0.7, 0.95, 0.95]]])
    after = torch.tensor([[[0.05, 0.02, 0.2, 0.2], [0.3, 0.35, 0.7, 0.72], [0.8, 0.8, 0.9, 0.9]]])
    assert float(misfit(best_warp(before, after, "separable"), before, after).max()) < 1e-5
    assert float(misfit(best_warp(before, after), before, after).max()) < 1e-5


def test_least_squares_are_those_of_another_solver() -> None:
    """Overlapping intervals of x that want different things; scipy minimises the same integral."""
    before, after = turned(ROW).double()[None], turned(RESIZED).double()[None]
    warp = best_warp(before, after, "separable")
    grid = np.linspace(0, 1, 4001)
    boxes = [(b, a) for b, a in zip(before[0].numpy(), after[0].numpy(), strict=True)]

    def cost(values: np.ndarray, knots: np.ndarray) -> float:
        total, moved = 0.0, np.interp(grid, knots, values)
        for b, a in boxes:
            inside = (grid >= b[0]) & (grid <= b[2])
            wanted = a[0] + (a[2] - a[0]) / (b[2] - b[0]) * (grid - b[0])
            total += (b[3] - b[1]) * float(((moved - wanted) ** 2 * inside).mean())
        return total

    knots, values = warp.x.knots[0].numpy(), warp.x.values[0].numpy()
    keep = np.flatnonzero(np.diff(knots, prepend=-1.0) > 1e-3)  # SLSQP needs no knots that coincide
    at = knots[keep]
    start = np.interp(at, knots, values)[1:-1]

    def inner(free: np.ndarray) -> float:
        return 1e3 * cost(np.concatenate([[0.0], free, [1.0]]), at)

    rises = {
        "type": "ineq",
        "fun": lambda free: np.diff(np.concatenate([[0.0], free, [1.0]])) - np.diff(at) / 16,
    }
    best = min(
        minimize(inner, x0, method="SLSQP", constraints=[rises], options={"maxiter": 200}).fun
        for x0 in (at[1:-1], start)
    )
    assert 1e3 * cost(values, knots) <= 1.02 * best + 1e-4
    assert best > 0.1  # there is something to lose


def test_slopes_stay_within_the_ratio() -> None:
    warp = best_warp(ROW[None].double(), RESIZED[None].double(), ratio=1.5)
    assert float(warp.slope_bounds.max()) <= 1.5 + 1e-6
    assert float(warp.slope_bounds.min()) >= 1 / 1.5 - 1e-6


def test_boxes_without_their_factors() -> None:
    boxes = torch.tensor([[[0.2, 0.2, 0.4, 0.4], [0.9, 0.5, 1.0, 0.6]]])
    got = unscaled_boxes(boxes, torch.tensor([[2.0, 0.5]]))
    # the second would reach beyond the picture
    torch.testing.assert_close(got, torch.tensor([[[0.25, 0.25, 0.35, 0.35], [0.8, 0.45, 1.0, 0.65]]]))


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((ROW[None], RESIZED[None], "grid"), UnknownNameError, "unknown family 'grid'"),
        ((ROW[None], RESIZED[None, :2]), ShapeError, "boxes must be two tensors"),
        ((ROW, RESIZED), ShapeError, "\\(batch, objects, 4\\); got \\(3, 4\\)"),
        ((ROW[None, :, [2, 1, 0, 3]], RESIZED[None]), ShapeError, "every box needs x1 > x0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, kind: type[LSEError], text: str) -> None:
    with pytest.raises(kind, match=text):
        best_warp(*arguments)
    with pytest.raises(UnknownNameError, match="unknown order 'zy'"):
        best_warp(ROW[None], RESIZED[None], order="zy")


@pytest.mark.parametrize("family", ["separable", "triangular"])
def test_digits_at_true_scales_look_like_digits_at_factor_one(family: str, tmp_path: Path) -> None:
    settings = {"count": 12, "resolution": 64, "variants": 2, "reference": True, "cache_dir": tmp_path}
    drawn = build_digits(**settings, scale=(0.5, 2.0), directions=("diagonal",))
    undone = build_true_scales(family, **settings, scale=(0.5, 2.0), directions=("diagonal",))
    assert torch.equal(undone.labels, drawn.labels)

    def apart(images: Tensor) -> float:
        one, other = images.float().unflatten(0, (-1, 2)).unbind(1)
        return float((one - other).square().mean())

    # both families can resize digits along a diagonal; resampling and room at the border take the rest
    assert apart(undone.images) < 0.35 * apart(drawn.images)
    reference = drawn.images[::2].float()
    assert float((undone.images[::2].float() - reference).square().mean()) < 0.02 * apart(drawn.images)


def test_an_unknown_family_of_the_data_set_is_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown family 'separble'"):
        build_true_scales("separble", count=1)
