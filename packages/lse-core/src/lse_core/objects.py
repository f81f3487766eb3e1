"""Local scaling of masked objects, as in section 5 of the paper; the group of warps approximates it.

Each masked object is resized about its own centre while the background stays where it is. Objects may
cover each other and what they uncover must be filled, so this is no warp and has no inverse. `masks`
and `flow` of the result say what happened to every pixel; `separable_gap` measures how far that is from
anything that the group of monotone scaling can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core.errors import DTypeError, ShapeError, WarpError
from lse_core.sampling import hat

__all__ = ["ScaledObjects", "fill_holes", "scale_objects", "separable_gap"]


@dataclass(frozen=True)
class ScaledObjects:
    """Pictures with objects resized, and what happened to their pixels.

    Args:
        image: (B, C, H, W) the new pictures.
        masks: (B, K, H, W) bool, where each object is seen now: resized, cut at the border, and
            without what nearer objects cover.
        flow: (B, H, W, 2) in pixels, xy order: where a pixel's content came from, minus where it is
            now; 0 on the background.
        revealed: (B, H, W) bool, background that objects covered before and that was filled in.
    """

    image: Tensor
    masks: Tensor
    flow: Tensor
    revealed: Tensor


def scale_objects(
    image: Tensor,
    masks: Tensor,
    factors: Tensor | float,
    *,
    background: Tensor | None = None,
    order: Sequence[int] | None = None,
    centres: Tensor | None = None,
) -> ScaledObjects:
    """Resize masked objects in place, the background held fixed.

    Edges are blended by the resized mask, and objects that shrink are averaged, not subsampled.
    Differentiable in the image, the background and the factors.

    Args:
        image: (B, C, H, W), floating.
        masks: (B, K, H, W) or (B, H, W) for one object, bool or floating within [0, 1].
        factors: (B, K), (K,) or a number, above 0: 2 makes an object twice as wide and high.
        background: (B, C, H, W), the pictures without the objects, such as an inpainter makes; None
            fills the objects' places smoothly from around them (`fill_holes`).
        order: objects from the farthest to the nearest, indices into K; None takes them as they come.
        centres: (B, K, 2) in pixels, xy order: the points that stay; None takes the middle of each
            object's bounding box.

    Raises:
        ShapeError: sizes do not fit, or an object's mask is empty.
        DTypeError: not floating, or on different devices.
        WarpError: a factor is not above 0.
    """
    masks, factors = _checked(image, masks, factors, background)
    b, k, h, w = masks.shape
    ranks = list(range(k)) if order is None else list(order)
    if sorted(ranks) != list(range(k)):
        raise ShapeError(f"order must contain the index of each of the {k} objects once; got {list(ranks)}")
    where = _box_centres(masks) if centres is None else centres
    if where.shape != (b, k, 2):
        raise ShapeError(f"centres must be {(b, k, 2)}; got {tuple(where.shape)}")
    alpha_before = masks.to(image.dtype)
    hidden = alpha_before.amax(dim=1) > 0
    scene = fill_holes(image, hidden) if background is None else background

    step = 1.0 / factors  # pixels of the old object to one of the new
    s_x = _pull(w, where[..., 0], step)
    s_y = _pull(h, where[..., 1], step)
    w_x, w_y = _weights(s_x, w, step), _weights(s_y, h, step)
    # colours go with their share of the mask, or the background would bleed into the edges
    layers = image.unsqueeze(1) * alpha_before.unsqueeze(2)
    layers = w_y.unsqueeze(2) @ layers @ w_x.mT.unsqueeze(2)
    alpha = (w_y @ alpha_before @ w_x.mT).unsqueeze(2)

    seen = torch.zeros_like(masks, dtype=torch.bool)
    p_x, p_y = (torch.arange(n, device=image.device, dtype=image.dtype) for n in (w, h))
    flow = image.new_zeros(b, h, w, 2)
    for i in ranks:
        scene = scene * (1.0 - alpha[:, i]) + layers[:, i]
        here = alpha[:, i, 0] > 0.5
        seen &= ~here.unsqueeze(1)
        seen[:, i] = here
        pull = torch.broadcast_tensors((s_x[:, i] - p_x).unsqueeze(1), (s_y[:, i] - p_y).unsqueeze(2))
        flow = torch.where(here.unsqueeze(-1), torch.stack(pull, dim=-1), flow)
    return ScaledObjects(scene, seen, flow, hidden & ~seen.any(dim=1))


def fill_holes(image: Tensor, holes: Tensor) -> Tensor:
    """Fill pixels smoothly from around them: averages of ever larger blocks, finest where there is any.

    Args:
        image: (B, C, H, W), floating.
        holes: (B, H, W) bool; a picture that is nothing but hole becomes 0.
    """
    known = (~holes).to(image.dtype).unsqueeze(1)
    if min(image.shape[2:]) <= 1 or bool(known.all()):
        return image * known
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(image * known, 2, ceil_mode=True) / weight.clamp_min(1e-9)
    coarse = fill_holes(coarse, weight[:, 0] == 0)
    up = F.interpolate(coarse, size=image.shape[2:], mode="bilinear", align_corners=False)
    return image * known + up * (1.0 - known)


def separable_gap(flow: Tensor) -> Tensor:
    """How far a flow is from every separable warp, root mean square in pixels, (B,).

    A separable warp's flow along x depends on x alone, along y on y alone; the nearest such flow is the
    average over the other axis. So this is a lower bound that no choice of warp beats: 0 for the group.

    Args:
        flow: (B, H, W, 2) in pixels, xy order, as `scale_objects` returns it.
    """
    x, y = flow[..., 0], flow[..., 1]
    rest = (x - x.mean(dim=1, keepdim=True)).square() + (y - y.mean(dim=2, keepdim=True)).square()
    return rest.mean(dim=(1, 2)).sqrt()


def _pull(n: int, centre: Tensor, step: Tensor) -> Tensor:
    """Where each of `n` new pixels comes from, (B, K, n): the centre stays."""
    p = torch.arange(n, device=centre.device, dtype=step.dtype)
    return centre.unsqueeze(-1) + (p - centre.unsqueeze(-1)) * step.unsqueeze(-1)


def _weights(s: Tensor, n: int, step: Tensor) -> Tensor:
    """Shares of old pixels in new ones, (B, K, n, n); less than 1 in all where the picture has an end."""
    width = step.clamp_min(1.0)[..., None, None]
    j = torch.arange(n, device=s.device, dtype=s.dtype)
    # a tent wider than a pixel covers pixels worth about its width, not exactly
    reach = int(width.detach().max().ceil())
    k = torch.arange(-reach, reach + 2, device=s.device, dtype=s.dtype)
    whole = hat(((s - s.detach().floor()).unsqueeze(-1) - k) / width).sum(-1, keepdim=True)
    return hat((s.unsqueeze(-1) - j) / width) / whole


def _box_centres(masks: Tensor) -> Tensor:
    """Middles of bounding boxes, (B, K, 2) in pixels, xy order."""
    middles = []
    for axis in (2, 3):  # columns are found by looking along rows
        line = (masks > 0.5).any(dim=axis)
        n = line.shape[-1]
        first = line.int().argmax(dim=-1)
        last = n - 1 - line.flip(-1).int().argmax(dim=-1)
        middles.append(0.5 * (first + last))
    return torch.stack(middles, dim=-1)


def _checked(
    image: Tensor, masks: Tensor, factors: Tensor | float, background: Tensor | None
) -> tuple[Tensor, Tensor]:
    if image.ndim != 4 or 0 in image.shape[1:]:
        raise ShapeError(f"images must be (batch, channels, height, width); got {tuple(image.shape)}")
    if not image.is_floating_point():
        raise DTypeError(f"objects need a floating image; got {image.dtype}")
    masks = masks.unsqueeze(1) if masks.ndim == 3 else masks
    if masks.ndim != 4 or masks.shape[0] != image.shape[0] or masks.shape[2:] != image.shape[2:]:
        raise ShapeError(
            f"masks {tuple(masks.shape)} have another size than the images {tuple(image.shape)}; "
            f"they must be (batch, objects, height, width)"
        )
    for what, t in (("masks", masks), ("background", background)):
        if t is not None and t.device != image.device:
            raise DTypeError(
                f"the {what} are on {t.device}, the image on {image.device}; move one with .to()"
            )
    if background is not None and background.shape != image.shape:
        raise ShapeError(
            f"background {tuple(background.shape)} has another size than the images {tuple(image.shape)}"
        )
    empty = (~(masks > 0.5).flatten(2).any(dim=2)).nonzero()
    if empty.numel():
        raise ShapeError(f"object {int(empty[0, 1])} of image {int(empty[0, 0])} has an empty mask")
    factors = torch.as_tensor(factors, device=image.device, dtype=image.dtype)
    if factors.ndim > 2 or (factors.ndim and factors.shape[-1] != masks.shape[1]):
        raise ShapeError(f"factors must fit {tuple(masks.shape[:2])}; got {tuple(factors.shape)}")
    factors = factors.expand(masks.shape[:2])
    if not bool((factors > 0).all()):
        raise WarpError(f"objects scale by factors above 0; got {float(factors.min()):.3g}")
    return masks, factors
