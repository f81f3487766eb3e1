"""Inputs at the edge of what a model will see, to compare files on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["edge_inputs"]


def edge_inputs(like: Tensor, batch: int) -> dict[str, Tensor]:
    """Inputs at the edge of what a model will see, by kind, (batch, C, H, W) each.

    "constant": flat images between the least and the largest value of `like`; "extreme": random signs
    at four times its largest magnitude; "random": uniform noise over its range. Of raw pictures (uint8):
    all levels, random black and white, and noise.
    """
    if like.dtype == torch.uint8:
        return {k: v.to(like) for k, v in _edge_pictures(tuple(like.shape[1:]), batch).items()}
    low, high = float(like.min()), float(like.max())
    shape = (batch, *like.shape[1:])
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(shape, generator=generator)
    levels = torch.linspace(low, high, batch).view(-1, 1, 1, 1)
    peak = 4.0 * max(abs(low), abs(high), 1e-3)
    edges = {
        "constant": levels.expand(shape).contiguous(),
        "extreme": torch.where(noise < 0.5, -peak, peak),
        "random": low + (high - low) * noise,
    }
    return {kind: image.to(like) for kind, image in edges.items()}


def _edge_pictures(shape: tuple[int, ...], batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (batch, *shape), generator=generator)
    levels = torch.linspace(0, 255, batch).round().view(-1, 1, 1, 1)
    return {
        "constant": levels.expand(batch, *shape).contiguous(),
        "extreme": torch.where(noise < 128, 0, 255),
        "random": noise,
    }
