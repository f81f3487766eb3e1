"""The generator: what its images show, and that equal settings give equal bytes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader

import lse_data.digits as digits_module
from lse_data import DIRECTIONS, DataError, DigitSampler, DigitsConfig, DigitsDataset, generate_digits
from lse_data.layout import DRAWS, Picker, boxes

SCANS = load_digits()


@cache
def made(**settings: object) -> DigitsDataset:
    return generate_digits(DigitsConfig.from_mapping(settings))


def edges(data: DigitsDataset) -> Tensor:
    """Boxes in pixel edges, float64."""
    return data.boxes.double() * (data.config.resolution - 1) + 0.5


def assert_same(one: DigitsDataset, other: DigitsDataset) -> None:
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


def test_labels_are_those_of_the_glyphs():
    data = made(count=300)
    target = torch.from_numpy(SCANS.target)[data.glyphs]
    assert torch.equal((target * torch.tensor([100, 10, 1])).sum(1), data.labels)


@pytest.mark.parametrize("antialias", [True, False])
def test_images_show_their_glyphs_in_their_boxes(antialias: bool):
    data = made(count=6, resolution=48, scale=(0.4, 3.0), antialias=antialias)
    for image, glyphs, places in zip(data.images, data.glyphs, edges(data).numpy(), strict=True):
        expected = np.zeros((48, 48))
        for scan, (x0, y0, x1, y1) in zip(SCANS.images[glyphs.numpy()] / 16, places, strict=True):
            sampled = tent(y0, y1, antialias) @ scan @ tent(x0, x1, antialias).T
            expected = np.maximum(expected, sampled)
        # 1: rounding; boxes are stored in float32
        assert np.abs(image[0].numpy() - 255 * expected).max() <= 1


def tent(start: float, end: float, antialias: bool) -> np.ndarray:
    """Weights (48, 8), written down from PIL's definition over a lattice that reaches beyond the glyph."""
    at = (np.arange(48)[:, None] + 0.5 - start) / (end - start) * 8
    width = max(1.0, 8 / (end - start)) if antialias else 1.0
    lattice = np.arange(-130, 130)
    weights = np.maximum(0, 1 - np.abs(at - lattice - 0.5) / width)
    return (weights / weights.sum(1, keepdims=True))[:, 130:138]


@pytest.mark.parametrize("scale", [(0.4, 2.0), (0.8, 1.25), (2.0, 3.0), (1.5, 1.5)])
def test_factors_and_boxes_honour_the_range(scale: tuple[float, float]):
    data = made(count=400, scale=scale)
    low, high = np.float32(scale[0]), np.float32(scale[1])
    assert data.scales.min() >= low
    assert data.scales.max() <= high
    # factors are uniform: the empirical distribution stays close to the straight line
    if low < high:
        ranks = (data.scales.flatten().sort().values - low) / (high - low)
        assert (ranks - torch.linspace(0, 1, len(ranks))).abs().max() < 0.06
    place = edges(data)
    sides = place[..., 2:] - place[..., :2]
    torch.testing.assert_close(
        sides, (data.scales.double() * 16)[..., None].expand(-1, -1, 2), atol=1e-4, rtol=0
    )
    assert place.min() >= -1e-4
    assert place.max() <= 96 + 1e-4


def test_unit_coordinates_have_pixel_centres_at_zero_and_one():
    data = made(count=50, scale=(6.0, 6.0), directions="horizontal")
    half = 0.5 / 95  # one digit fills the canvas from edge to edge
    torch.testing.assert_close(data.boxes, torch.tensor([-half, -half, 1 + half, 1 + half]).expand(50, 3, 4))


def test_ink_stays_in_its_boxes():
    data = made(count=200)
    pixel = torch.arange(96) + 0.5
    for image, place, scale in zip(data.images, edges(data), data.scales, strict=True):
        covered = torch.zeros(96, 96, dtype=torch.bool)
        for (x0, y0, x1, y1), factor in zip(place, scale, strict=True):
            pixel_side = 2 * float(factor)  # of a glyph pixel; the filter starts at its centre
            rim = max(pixel_side, 1.0) - pixel_side / 2 + 1e-3
            inside_x = (pixel > x0 - rim) & (pixel < x1 + rim)
            inside_y = (pixel > y0 - rim) & (pixel < y1 + rim)
            covered |= inside_y[:, None] & inside_x
        assert not image[0][~covered].any()
        assert image[0][covered].max() > 100


@pytest.mark.parametrize("scale", [(0.4, 2.0), (2.0, 3.0)])
def test_digits_follow_each_other_along_the_direction(scale: tuple[float, float]):
    data = made(count=400, scale=scale)
    place = edges(data)
    centers = (place[..., :2] + place[..., 2:]) / 2
    steps = centers[:, 1:] - centers[:, :-1]
    gaps = place[:, 1:, :2] - place[:, :-1, 2:]
    fits = scale[1] <= 2
    for code, axes in enumerate(([0], [1], [0, 1])):
        chosen = data.direction == code
        assert chosen.sum() > 90, DIRECTIONS[code]
        assert (steps[chosen][..., axes] > 0).all()
        if fits:
            assert (gaps[chosen][..., axes] > -1e-4).all()
    # one line crosses all digits of a row or column, so the two cannot be taken for each other
    for code, axis in ((0, 1), (1, 0)):
        row = place[data.direction == code]
        assert (row[..., axis].amax(1) < row[..., axis + 2].amin(1)).all()


def test_a_diagonal_draws_gaps_for_each_axis():
    data = made(count=100, scale=(0.4, 1.9), directions="diagonal", resolution=32)
    off = data.boxes[:, 0, 0] - data.boxes[:, 0, 1]
    assert (off.abs() > 1e-3).float().mean() > 0.95
    assert 0.3 < (off > 0).float().mean() < 0.7


def test_digits_too_long_overlap_evenly_between_the_borders():
    data = made(count=300, scale=(2.0, 3.0))
    place = edges(data)
    for code, axes in enumerate(([0], [1], [0, 1])):
        for axis in axes:
            line = place[data.direction == code][..., [axis, axis + 2]]
            torch.testing.assert_close(line[:, 0, 0], torch.zeros(len(line)).double(), atol=1e-4, rtol=0)
            torch.testing.assert_close(
                line[:, 2, 1], torch.full((len(line),), 96.0).double(), atol=1e-4, rtol=0
            )
            gaps = line[:, 1:, 0] - line[:, :-1, 1]
            assert (gaps < 0).all()
            torch.testing.assert_close(gaps[:, 0], gaps[:, 1], atol=1e-4, rtol=0)


@settings(max_examples=80, deadline=None)
@given(
    uniform=st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS),
    factor=st.lists(st.floats(0.1, 6.0), min_size=3, max_size=3),
    jitter=st.floats(0, 1),
)
def test_boxes_fit_and_keep_their_order_for_any_draw(
    uniform: list[float], factor: list[float], jitter: float
):
    config = DigitsConfig(1, scale=(0.1, 6.0), jitter=jitter)
    base = Picker(torch.arange(10), config)(torch.tensor([uniform], dtype=torch.float64))
    place = boxes(base, torch.tensor([factor]), config)[0]
    assert place.min() >= 0
    assert place.max() <= 96 + 1e-9
    sides = torch.tensor(factor).double() * 16
    torch.testing.assert_close(place[:, 2] - place[:, 0], sides)
    torch.testing.assert_close(place[:, 3] - place[:, 1], sides)
    axis = 1 if DIRECTIONS[int(base.direction)] == "vertical" else 0
    centers = (place[:, axis] + place[:, axis + 2]) / 2
    # equal only where a digit fills the canvas
    assert (centers.diff() >= -1e-9).all()
    if DIRECTIONS[int(base.direction)] != "diagonal":
        across = place[:, [1 - axis, 3 - axis]]
        assert across[:, 0].max() <= across[:, 1].min() + 1e-9


def test_numbers_and_directions_are_drawn_evenly():
    data = made(count=6000, resolution=8, scale=(1.0, 1.0), glyph_size=2)
    counts = torch.bincount(data.labels, minlength=1000)
    assert counts.shape == (1000,)
    assert counts.max() < 20  # 6 expected
    assert (counts == 0).sum() < 12  # 2.5 expected
    assert torch.bincount(data.direction).min() > 1850
    # every glyph of the split comes up
    assert len(data.glyphs.unique()) == len(digits_module.load_glyphs("sklearn", "train"))


def test_directions_can_be_chosen():
    data = made(count=40, directions=("vertical", "diagonal"), resolution=32)
    assert data.direction.unique().tolist() == [1, 2]


def test_equal_settings_give_equal_bytes_whatever_the_global_state(monkeypatch: pytest.MonkeyPatch):
    config = DigitsConfig(37, resolution=40)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    state = torch.get_rng_state()
    first = generate_digits(config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    for pixels in (1, 7 * 1600, 10**9):
        monkeypatch.setattr(digits_module, "CPU_CHUNK", pixels)
        assert_same(first, generate_digits(config))


def test_images_do_not_change_when_there_are_more_of_them():
    few, many = made(count=20, variants=2, resolution=32), made(count=33, variants=2, resolution=32)
    for name, tensor in few.tensors().items():
        assert torch.equal(tensor, many.tensors()[name][:40]), name


def test_variants_do_not_change_when_there_are_more_of_them():
    one, three = made(count=9, resolution=32), made(count=9, variants=3, resolution=32)
    for name in ("images", "scales", "boxes"):
        assert torch.equal(one.tensors()[name], three.tensors()[name][::3]), name


def test_seeds_and_splits_differ():
    base = made(count=30, resolution=32)
    assert not torch.equal(base.labels, made(count=30, resolution=32, seed=1).labels)
    test = made(count=30, resolution=32, split="test")
    assert not torch.equal(base.labels, test.labels)
    assert not set(base.glyphs.flatten().tolist()) & set(test.glyphs.flatten().tolist())


def test_seed_of_the_images_leaves_the_split_of_the_glyphs():
    train = made(count=500, resolution=16, seed=1)
    test = made(count=500, resolution=16, seed=2, split="test")
    assert not set(train.glyphs.flatten().tolist()) & set(test.glyphs.flatten().tolist())


@pytest.mark.parametrize("reference", [True, False])
def test_variants_share_all_but_the_factors(reference: bool):
    data = made(count=25, variants=4, reference=reference, scale=(0.5, 1.9), resolution=32)
    assert len(data) == 100
    assert data.groups.tolist() == [i for i in range(25) for _ in range(4)]
    for name in ("labels", "glyphs", "direction"):
        tensor = data.tensors()[name].unflatten(0, (25, 4))
        assert (tensor == tensor[:, :1]).all(), name
    scales = data.scales.unflatten(0, (25, 4))
    assert (scales[:, 1:] != scales[:, :-1]).all()
    assert (scales[:, 0] == 1).all() == reference
    # gaps are shared as proportions of the free length
    place = edges(data)[data.direction == 0].unflatten(0, (-1, 4))
    free = 32 - data.scales[data.direction == 0].double().sum(1).unflatten(0, (-1, 4)) * 32 / 6
    share = place[:, :, 0, 0] / free
    torch.testing.assert_close(share, share[:, :1].expand(-1, 4), atol=1e-4, rtol=0)


def test_dataset_gives_items_and_collates():
    data = made(count=10, resolution=32)
    image, label = data[3]
    assert image.dtype == torch.float32
    assert image.shape == (1, 32, 32)
    assert isinstance(label, int)
    torch.testing.assert_close(image, data.images[3] / 255)
    images, labels = next(iter(DataLoader(data, batch_size=10)))
    assert torch.equal(labels, data.labels)
    assert torch.equal(images, torch.stack([data[i][0] for i in range(10)]))
    with pytest.raises(IndexError):
        data[10]


def test_dataset_refuses_tensors_that_do_not_fit():
    data = made(count=4, resolution=32)
    with pytest.raises(DataError, match=r"labels is torch\.int64 \(3,\), not torch\.int64 \(4,\)"):
        DigitsDataset(**{**data.tensors(), "labels": data.labels[:3]}, config=data.config)
    with pytest.raises(DataError, match=r"images is torch\.float32"):
        DigitsDataset(**{**data.tensors(), "images": data.images.float()}, config=data.config)


def test_sampler_draws_new_images_reproducibly():
    config = DigitsConfig(1, resolution=32, seed=4)
    one, two = DigitSampler(config), DigitSampler(config)
    first, labels = one.sample(5)
    assert first.dtype == torch.float32
    assert first.shape == (5, 1, 32, 32)
    assert 0.4 < first.max() <= 1
    again, same = two.sample(5)
    assert torch.equal(first, again)
    assert torch.equal(labels, same)
    assert not torch.equal(first, one.sample(5)[0])
    # a caller's generator decides, whatever was drawn before
    images = [s.sample(5, torch.Generator().manual_seed(9))[0] for s in (one, two)]
    assert torch.equal(*images)
    with pytest.raises(DataError, match="at least 1"):
        one.sample(0)


def test_sampler_and_data_set_draw_alike(monkeypatch: pytest.MonkeyPatch):
    # fed the data set's own random numbers, the sampler gives the data set's images
    config = DigitsConfig(6, resolution=32, variants=2, reference=True)
    data = generate_digits(config)
    scale = torch.stack([digits_module._uniform(config, 1 + v, 3) for v in range(2)], dim=1)
    numbers = iter([digits_module._uniform(config, 0, DRAWS), scale])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(numbers))
    images, labels = DigitSampler(config).sample(6)
    assert torch.equal(images, data.images / 255)
    assert torch.equal(labels, data.labels)


def test_sampler_gives_variants_and_goes_on_forever():
    sampler = DigitSampler(DigitsConfig(1, resolution=32, variants=3))
    seen = [sampler.sample(2) for _ in range(3)]
    for images, labels in seen:
        assert images.shape == (6, 1, 32, 32)
        assert (labels.unflatten(0, (2, 3)) == labels[::3, None]).all()
    assert not torch.equal(seen[0][0], seen[1][0])
