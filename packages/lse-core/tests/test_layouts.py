"""Layouts: what `unpack` finds, `pack` puts back, and what is no map is refused."""

import pytest
import torch

from lse_core import NCHW, NHWC, Layout, Tokens
from lse_core.errors import ShapeError, UnknownNameError
from lse_core.layouts import as_layout


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_go_round_and_keep_row_order(prefix: int) -> None:
    layout = Tokens((2, 3), prefix)
    x = torch.arange(4 * (prefix + 6) * 7.0).view(4, prefix + 6, 7)
    patches, rest = layout.unpack(x)
    assert patches.shape == (4, 2, 3, 7)
    assert torch.equal(patches[:, 1, 2], x[:, prefix + 5])
    assert torch.equal(layout.pack(patches, rest), x)
    assert (rest is None) == (prefix == 0)


@pytest.mark.parametrize("layout", [NCHW(), NHWC()])
def test_maps_pass_as_they_are(layout: Layout) -> None:
    x = torch.rand(2, 3, 4, 5)
    spatial, rest = layout.unpack(x)
    assert rest is None
    assert layout.pack(spatial, rest) is x


def test_layouts_by_name() -> None:
    assert as_layout("nchw") == NCHW()
    assert as_layout("nhwc") == NHWC()
    mine = Tokens((7, 7))
    assert as_layout(mine) is mine
    assert isinstance(mine, Layout)
    with pytest.raises(UnknownNameError, match=r"unknown layout 'nwhc'. Did you mean 'nhwc'\?.*Tokens"):
        as_layout("nwhc")


@pytest.mark.parametrize(
    ("layout", "shape", "text"),
    [
        (NCHW(), (3, 4, 5), "expected an image or NCHW map"),
        (NHWC(), (2, 3, 4, 5, 6), "expected an NHWC map"),
        (Tokens((2, 3)), (2, 7), "expected tokens"),
        (Tokens((2, 3)), (2, 6, 8), "6 tokens are not 1 prefix tokens and a 2 x 3 grid"),
        (NCHW(), (2, 3, 0, 5), "an empty map cannot be warped"),
    ],
)
def test_what_does_not_fit_is_named(layout: Layout, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        layout.unpack(torch.zeros(shape))
