"""Scaling masked objects in place: sizes, occlusion, flow, the fixed background."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core import SeparableWarp, unscale
from lse_core.errors import DTypeError, LSEError, ShapeError, WarpError
from lse_core.objects import fill_holes, scale_objects, separable_gap


def scene(h: int = 40, w: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Two squares on a ramp: image, masks, background."""
    background = torch.linspace(0, 1, w).expand(1, 1, h, w).repeat(1, 3, 1, 1).double()
    masks = torch.zeros(1, 2, h, w, dtype=torch.bool)
    masks[0, 0, 10:20, 10:20] = True
    masks[0, 1, 15:25, 40:50] = True
    image = background.clone()
    image[:, :, 10:20, 10:20] = torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1, 1).double()
    image[:, :, 15:25, 40:50] = torch.tensor([0.0, 3.0, 0.0]).view(1, 3, 1, 1).double()
    return image, masks, background


def box(mask: Tensor) -> tuple[int, int, int, int]:
    rows, cols = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1


def test_factor_one_changes_nothing() -> None:
    image, masks, background = scene()
    for given in (background, None):
        out = scale_objects(image, masks, 1.0, background=given)
        assert torch.allclose(out.image, image, atol=1e-12)
        assert torch.equal(out.masks, masks)
        assert float(out.flow.abs().max()) == 0.0
        assert not bool(out.revealed.any())


def test_objects_grow_and_shrink_about_their_centres_and_nothing_else_moves() -> None:
    image, masks, background = scene()
    out = scale_objects(image, masks, torch.tensor([2.0, 0.5]), background=background)
    assert box(out.masks[0, 0]) == (5, 25, 5, 25)
    assert box(out.masks[0, 1]) == (17, 23, 42, 48) or box(out.masks[0, 1]) == (18, 22, 43, 47)
    assert abs(int(out.masks[0, 1].sum()) - 25) <= 11
    far = ~F.max_pool2d(out.masks.any(1, keepdim=True).double(), 3, 1, 1).bool()
    for c in range(3):
        assert torch.equal(out.image[:, c : c + 1][far], background[:, c : c + 1][far])
    inside = out.masks[0, 0].clone()
    inside[[5, 24]] = False
    inside[:, [5, 24]] = False
    assert torch.allclose(out.image[0, 0][inside], torch.tensor(2.0).double())
    assert torch.equal(out.revealed, masks.any(1) & ~out.masks.any(1))


@pytest.mark.parametrize("factor", [0.3, 0.55, 0.63, 0.7, 0.9, 1.3])
def test_colours_inside_an_object_stay_as_they_are(factor: float) -> None:
    """Averaging over a shrinking object keeps its weights' sum, whatever the factor."""
    mask = torch.zeros(1, 1, 61, 61, dtype=torch.bool)
    mask[..., 8:53, 8:53] = True
    out = scale_objects(torch.where(mask, 0.8, 0.2).double(), mask, factor, background=None)
    inner = -F.max_pool2d(-out.masks[:, :1].double(), 7, 1, 3) > 0.5
    assert int(inner.sum()) > 30
    assert torch.allclose(out.image[inner], torch.tensor(0.8).double(), atol=1e-6)


def test_flow_says_where_pixels_came_from() -> None:
    image, masks, background = scene()
    image = image + 0.01 * torch.arange(40).view(1, 1, 40, 1) * masks.any(1, keepdim=True)
    out = scale_objects(image, masks, torch.tensor([2.0, 1.5]), background=background)
    p = torch.stack(torch.meshgrid(torch.arange(60.0), torch.arange(40.0), indexing="xy"), -1).double()
    source = (p + out.flow[0]) / torch.tensor([59.0, 39.0]).double() * 2 - 1
    pulled = F.grid_sample(image, source.unsqueeze(0), align_corners=True)
    for k in (0, 1):
        inner = ~F.max_pool2d((~out.masks[:, k : k + 1]).double(), 7, 1, 3).bool()[0, 0]
        assert int(inner.sum()) > 20
        assert torch.allclose(out.image[0][:, inner], pulled[0][:, inner], atol=1e-9)
    assert float(out.flow[~out.masks.any(1)].abs().max()) == 0.0


def test_nearer_objects_cover_farther_ones() -> None:
    image, masks, background = scene()
    factors = torch.tensor([4.0, 4.0])
    for order, front in ((None, 1), ([0, 1], 1), ([1, 0], 0)):
        out = scale_objects(image, masks, factors, background=background, order=order)
        assert int((out.masks[0, 0] & out.masks[0, 1]).sum()) == 0
        middle = out.image[0, :, 18, 30]  # both reach it
        assert int(middle.argmax()) == front
        assert bool(out.masks[0, front, 18, 30])


def test_objects_are_cut_at_the_border() -> None:
    image, masks, background = scene()
    out = scale_objects(image, masks[:, :1], 6.0, background=background)
    assert box(out.masks[0, 0]) == (0, 40, 0, 45)


def test_shrinking_averages() -> None:
    image, masks, background = scene()
    stripes = 2.0 * (torch.arange(60) % 2).double()
    image = torch.where(masks[:, :1], stripes.expand_as(image), image)
    out = scale_objects(image, masks[:, :1], 0.25, background=torch.zeros_like(background))
    centre = (
        out.image[0, 0, 14:16, 14:16]
        / scale_objects(
            torch.ones_like(image), masks[:, :1], 0.25, background=torch.zeros_like(background)
        ).image[0, 0, 14:16, 14:16]
    )
    assert torch.allclose(centre, torch.ones_like(centre), atol=0.2)


def test_one_object_and_per_image_factors() -> None:
    image, masks, _ = scene()
    image, mask = image.repeat(2, 1, 1, 1), masks[:, 0].repeat(2, 1, 1)
    out = scale_objects(image, mask, torch.tensor([[1.0], [2.0]]))
    assert box(out.masks[0, 0]) == (10, 20, 10, 20)
    assert box(out.masks[1, 0]) == (5, 25, 5, 25)
    fixed = scale_objects(image, mask, 2.0, centres=torch.tensor([[[9.5, 9.5]], [[9.5, 9.5]]]).double())
    assert box(fixed.masks[0, 0])[:2] == (10, 30)  # the upper left corner stays


def test_gradients_reach_the_factors() -> None:
    image, masks, background = scene(12, 14)
    masks = torch.zeros(1, 1, 12, 14, dtype=torch.bool)
    masks[..., 3:8, 4:9] = True
    factors = torch.tensor([[1.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f: scale_objects(image, masks, f, background=background).image, (factors,), fast_mode=True
    )


def test_holes_are_filled_from_around() -> None:
    image, masks, background = scene()
    filled = fill_holes(image, masks.any(1))
    assert torch.equal(filled[:, :, ~masks.any(1)[0]], image[:, :, ~masks.any(1)[0]])
    assert float((filled - background).abs().max()) < 0.15  # a ramp is guessed well, red and green are gone
    assert float(fill_holes(image, torch.ones(1, 40, 60, dtype=torch.bool)).abs().max()) == 0.0


def test_the_gap_is_nil_for_the_group_and_not_for_objects() -> None:
    w = SeparableWarp.random(1, 4, 3.0, dtype=torch.float64)
    p = torch.stack(
        torch.meshgrid(torch.linspace(0, 1, 60), torch.linspace(0, 1, 40), indexing="xy"), -1
    ).double()
    size = torch.tensor([59.0, 39.0]).double()
    flow = (w(p.view(-1, 2)).view(1, 40, 60, 2) - p) * size
    assert float(separable_gap(flow)) < 1e-9
    image, masks, background = scene()
    out = scale_objects(image, masks, torch.tensor([2.0, 0.5]), background=background)
    gap = float(separable_gap(out.flow))
    assert gap > 0.5
    # a lower bound: no separable flow comes nearer, the identity among them
    assert gap < float(out.flow.square().sum(-1).mean().sqrt())
    assert unscale(image, w).shape == image.shape


IMAGE, MASKS, _ = scene()
BAD = {
    "another size": (lambda: scale_objects(IMAGE, MASKS[..., :-1], 2.0), ShapeError, "another size"),
    "another background": (
        lambda: scale_objects(IMAGE, MASKS, 2.0, background=IMAGE[..., :-1]),
        ShapeError,
        "background .* another size",
    ),
    "empty mask": (
        lambda: scale_objects(IMAGE, MASKS & False, 2.0),
        ShapeError,
        "object 0 of image 0 has an empty",
    ),
    "no factor": (lambda: scale_objects(IMAGE, MASKS, 0.0), WarpError, "factors above 0; got 0"),
    "factors": (lambda: scale_objects(IMAGE, MASKS, torch.ones(3)), ShapeError, r"must fit \(1, 2\)"),
    "integers": (lambda: scale_objects(IMAGE.long(), MASKS, 2.0), DTypeError, "floating image"),
    "rank": (lambda: scale_objects(IMAGE[0], MASKS, 2.0), ShapeError, "batch, channels, height"),
    "device": (lambda: scale_objects(IMAGE, MASKS.to("meta"), 2.0), DTypeError, "masks are on meta"),
    "order": (
        lambda: scale_objects(IMAGE, MASKS, 2.0, order=[0, 0]),
        ShapeError,
        "of the 2 objects once",
    ),
    "centres": (
        lambda: scale_objects(IMAGE, MASKS, 2.0, centres=torch.zeros(1, 2)),
        ShapeError,
        "centres must be",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_error(case: str) -> None:
    call, error, text = BAD[case]
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, LSEError)
    assert "\n" not in str(caught.value)
