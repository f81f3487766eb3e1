"""The Lie derivative of every layer of a model under fields of local scaling, in forward mode.

A one-parameter family of warps l_t with l_0 the identity acts on a map F by S_t F = S(F; l_t) (Eq. 13). Its
derivative at t = 0 is linear in F; call it V F. For a function f whose input and output are maps,

    (L f)(x) = d/dt S_t⁻¹ f(S_t x) at t = 0  =  Df(x) V x - V f(x),

which is 0 for all x and all families exactly where f is equivariant to small local scaling (Gruver et al.
2022, "The Lie Derivative for Measuring Learned Equivariance"). On what has no place in the picture, such as
pooled features and class scores, S_t is the identity and V is 0, so L f is what invariance lacks.

By the chain rule, L(h ∘ f)(x) = (L h)(f(x)) + Dh (L f)(x): the second term is what f has broken, and the
first is the own share of h. `trace` measures own shares: it runs the model once with tangents, starting with
V x, and wherever a tensor F enters or leaves a module it notes the tangent minus V F and lets V F go on. So
every tensor enters a module as if all before it were equivariant, and residual branches, gates and operations
outside of modules are accounted for: with g the gradient of a scalar s of the answer, the sum of
<g, own share> over all places is d/dt s(model(S_t x)) exactly.

V F is the derivative of what `lse_core.scale` computes: velocity times central difference. On a grid, only
operations that are linear and mix no positions have L f = 0 exactly; a nonlinearity has an own share too, by
aliasing, which vanishes as maps become smooth against their pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lse_core.layouts import Layout, as_layout
from lse_core.log_slopes import uniform_basis
from lse_core.measuring.places import Place, visiting
from lse_core.random import random_log_slopes
from lse_core.resample import pixel_centres

__all__ = ["ScalingField", "lie_derivative", "trace"]


@dataclass(frozen=True)
class ScalingField:
    """A batch of directions of local scaling: the warps l_t with log-slopes t w, for t near 0.

    Args:
        log_slopes: w, (B, 2, N), axis x first; see `SeparableWarp.from_log_slopes`.
    """

    log_slopes: Tensor

    @classmethod
    def random(
        cls, batch: int, segments: int = 4, ratio: float = 2.0, *, generator: torch.Generator | None = None
    ) -> ScalingField:
        """Directions of random warps, whose slopes at t = 1 lie within [1/ratio, ratio]."""
        return cls(random_log_slopes(batch, segments, ratio, generator=generator))

    def velocity(self, pixels: int, axis: int) -> Tensor:
        """How fast points move, in pixels: (pixels - 1) d l_t(u) / dt at pixel centres u, (B, pixels).

        Args:
            pixels: of the map along the axis.
            axis: 0 for x, 1 for y.
        """
        w = self.log_slopes[:, axis]
        # l_t(u) is the sum of softmax(t w) over what lies below u
        slopes = (w - w.mean(dim=1, keepdim=True)) / w.shape[1]
        return slopes @ uniform_basis(pixel_centres(pixels, w), w.shape[1]).T * (pixels - 1)

    def act(self, x: Tensor, layout: Layout | str | None = "nchw") -> Tensor:
        """V x: the derivative of `scale(x, l_t)` at t = 0, which is 0 where `layout` is None.

        Args:
            x: (B, C, H, W), (B, H, W, C) or tokens, as `layout` says; prefix tokens have no place and give 0.
            layout: see `lse_core.scale`; None for what has no place in the picture.
        """
        if layout is None:
            return torch.zeros_like(x)
        lay = as_layout(layout)
        spatial, rest = lay.unpack(x)
        rows = 1 if lay.channels_last else 2
        total = torch.zeros_like(spatial)
        for axis, dim in ((0, rows + 1), (1, rows)):
            n = spatial.shape[dim]
            if n < 3:  # a warp keeps the border
                continue
            shape = [spatial.shape[0], 1, 1, 1]
            shape[dim] = n - 2
            speed = self.velocity(n, axis).to(x)[:, 1:-1].reshape(shape)
            change = spatial.narrow(dim, 2, n - 2) - spatial.narrow(dim, 0, n - 2)
            # S pulls through the inverse, so the picture moves with the points: dF = -v dF/dx
            total.narrow(dim, 1, n - 2).sub_(0.5 * speed * change)
        return lay.pack(total, None if rest is None else torch.zeros_like(rest))


def lie_derivative(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    field: ScalingField,
    layout: Layout | str | None = "nchw",
    output_layout: Layout | str | None = "nchw",
) -> Tensor:
    """(L f)(x) of one function, as the module's first lines define it; shaped like its output.

    Args:
        function: f, differentiable in forward mode.
        x: a batch as the field's, laid out as `layout`.
        field: the direction.
        layout: of the input; None where it has no place in the picture.
        output_layout: likewise of the output.
    """
    with torch.no_grad(), forward_ad.dual_level():
        dual = function(forward_ad.make_dual(x, field.act(x, layout)))
        out, tangent = forward_ad.unpack_dual(dual)
    return (0.0 if tangent is None else tangent) - field.act(out, output_layout)


Note = Callable[[Place, Tensor, Tensor], None]
"""Called with a place, the tensor F there, and its tangent minus V F."""


def trace(
    model: Callable[[Tensor], Tensor],
    modules: nn.Module,
    images: Tensor,
    field: ScalingField,
    note: Note,
    *,
    own: bool = True,
) -> Tensor:
    """Run the model with tangents, V x at first, and note L of what leads to each place.

    Args:
        model: gives one tensor for the images.
        modules: what `model` runs; visited as `lse_core.measuring.places` says.
        images: (B, C, H, W), B at least 2, normalised.
        field: of batch B.
        note: told of every place, in the order in which they are met.
        own: note own shares, by letting V F go on. Otherwise all tangents pass, L is that of everything from
            the image on, and the result is the derivative of the whole model.

    Returns:
        The answer's tangent.

    Raises:
        NotImplementedError, RuntimeError: an operation has no derivative in forward mode.
    """

    def visit(place: Place, x: Tensor) -> Tensor:
        value, tangent = forward_ad.unpack_dual(x)
        wanted = field.act(value, place.layout)
        note(place, value, (0.0 if tangent is None else tangent) - wanted)
        return forward_ad.make_dual(value, wanted) if own else x

    with torch.no_grad(), forward_ad.dual_level(), visiting(modules, images.shape[0], visit):
        answer, tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(images, field.act(images))))
        return torch.zeros_like(answer) if tangent is None else tangent
