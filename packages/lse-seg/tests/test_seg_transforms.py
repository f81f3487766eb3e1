"""Images and label maps under local scaling: aligned, exact on labels, the same for the same seeds."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lse_seg  # noqa: F401  (puts the placeholder for mmcv's ops in place)
from lse_core import SeparableWarp
from lse_core.errors import LSEError, ShapeError
from lse_seg.transforms import RandomMonotoneScaling, ScaleObjects

IGNORED = 255


def sample(seed: int, h: int = 20, w: int = 31, classes: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (h // 4 + 1, w // 4 + 1)).repeat(4, 0).repeat(4, 1)[:h, :w]
    labels = np.where(rng.random((h, w)) < 0.1, IGNORED, labels).astype(np.uint8)
    return {
        "img": rng.integers(0, 256, (h, w, 3)).astype(np.uint8),
        "gt_seg_map": labels,
        "gt_edge_map": (labels % 2).astype(np.int64),
        "gt_depth_map": rng.random((h, w)).astype(np.float32),
        "seg_fields": ["gt_seg_map", "gt_edge_map", "gt_depth_map"],
    }


def copied(results: dict[str, Any]) -> dict[str, Any]:
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in results.items()}


def evaluate(knots: NDArray[np.float64], values: NDArray[np.float64], u: float) -> float:
    """A piecewise-linear map at one point, by looking for its segment."""
    for i in range(len(knots) - 1):
        if u <= knots[i + 1] or i == len(knots) - 2:
            share = (u - knots[i]) / (knots[i + 1] - knots[i])
            return float(values[i] + share * (values[i + 1] - values[i]))
    raise AssertionError


def reference(
    results: dict[str, Any], warp: SeparableWarp, inverse: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Image, labels and distance to the border between two nearest pixels: loops in float64.

    The picture at p is the old one at l(p) ("unscale") or at l^-1(p) ("scale").
    """
    h, w = results["gt_seg_map"].shape
    image, labels = np.zeros((h, w, 3)), np.zeros((h, w), dtype=np.int64)
    margin = np.zeros((h, w))
    maps = []
    for m in (warp.x, warp.y):
        k, v = m.knots[0].double().numpy(), m.values[0].double().numpy()
        maps.append((v, k) if inverse else (k, v))
    for i in range(h):
        for j in range(w):
            x = evaluate(*maps[0], j / (w - 1)) * (w - 1)
            y = evaluate(*maps[1], i / (h - 1)) * (h - 1)
            x0, y0 = min(int(x), w - 2), min(int(y), h - 2)
            fx, fy = x - x0, y - y0
            corners = results["img"][y0 : y0 + 2, x0 : x0 + 2].astype(np.float64)
            image[i, j] = (
                (1 - fy) * ((1 - fx) * corners[0, 0] + fx * corners[0, 1])
                + fy * ((1 - fx) * corners[1, 0] + fx * corners[1, 1])
            )  # fmt: skip
            labels[i, j] = results["gt_seg_map"][int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]
            margin[i, j] = min(abs(x - np.floor(x) - 0.5), abs(y - np.floor(y) - 0.5))
    return image, labels, margin


@pytest.mark.parametrize("convention", ["scale", "unscale"])
@pytest.mark.parametrize("seed", range(4))
def test_image_and_labels_match_an_independent_reference(convention: str, seed: int) -> None:
    before = sample(seed)
    torch.manual_seed(seed)
    after = RandomMonotoneScaling(1.0, convention=convention, ratio=3.0)(copied(before))
    image, labels, margin = reference(before, after["monotone_warp"], convention == "scale")
    assert np.abs(after["img"] - image).max() <= 0.51  # it is rounded to bytes
    sure = margin > 1e-4  # float32 decides ties its own way
    assert sure.mean() > 0.98
    assert np.array_equal(after["gt_seg_map"][sure], labels[sure])
    assert not np.array_equal(after["gt_seg_map"], before["gt_seg_map"])


@pytest.mark.parametrize("convention", ["scale", "unscale"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("h", "w"), [(20, 31), (64, 64), (1, 7), (97, 3)])
def test_identity_changes_no_pixel_and_no_label(h: int, w: int, convention: str, antialias: bool) -> None:
    before = sample(0, h, w)
    transform = RandomMonotoneScaling(1.0, convention=convention, antialias=antialias, strength=0.0)
    after = transform(copied(before))
    for name in ("img", *before["seg_fields"]):
        assert np.array_equal(after[name], before[name]), name
        assert after[name].dtype == before[name].dtype


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    h=st.integers(2, 24),
    w=st.integers(2, 24),
    ratio=st.floats(1.1, 8.0),
    segments=st.integers(1, 6),
    kind=st.sampled_from(["separable", "grid"]),
)
def test_ignore_index_never_bleeds(seed: int, h: int, w: int, ratio: float, segments: int, kind: str) -> None:
    """Nothing is made up between labels, and all maps move by the same pixels as the ignored ones."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([3, 7, IGNORED], dtype=np.uint8), (h, w))
    where = np.arange(h * w).reshape(h, w)
    results = {
        "img": np.repeat(np.where(labels == IGNORED, 255, 0).astype(np.uint8)[..., None], 3, 2),
        "gt_seg_map": labels,
        "where": where,
        "seg_fields": ["gt_seg_map", "where"],
    }
    options: dict[str, Any] = {"ratio": ratio, "segments": segments} if kind == "separable" else {}
    torch.manual_seed(seed)
    after = RandomMonotoneScaling(1.0, warp=kind, **options)(copied(results))
    source = after["where"].ravel()
    assert np.array_equal(after["gt_seg_map"].ravel(), labels.ravel()[source])
    # far from ignored pixels nothing of them is in the image, and nothing is ignored
    assert np.array_equal(after["gt_seg_map"] == IGNORED, (labels.ravel()[source] == IGNORED).reshape(h, w))
    assert set(np.unique(after["gt_seg_map"])) <= {3, 7, IGNORED}
    near = after["img"][..., 0].astype(int)
    assert (near[after["gt_seg_map"] == IGNORED] >= 63).all()  # the nearest of four weighs at least 1/4
    assert (near[after["gt_seg_map"] != IGNORED] <= 192).all()


def test_slopes_above_one_enlarge_by_scale_and_shrink_by_unscale() -> None:
    labels = np.zeros((65, 65), dtype=np.uint8)
    labels[28:37, 28:37] = 1
    for seed in range(5):
        areas = {}
        for convention in ("scale", "unscale"):
            torch.manual_seed(seed)
            transform = RandomMonotoneScaling(1.0, convention=convention, segments=3, ratio=3.0)
            results = {
                "img": np.zeros((65, 65, 3), np.uint8),
                "gt_seg_map": labels,
                "seg_fields": ["gt_seg_map"],
            }
            after = transform(results)
            areas[convention] = after["gt_seg_map"].sum() / 81
        slope = float(after["monotone_warp"].x.slopes[0, 1] * after["monotone_warp"].y.slopes[0, 1])
        assert areas["scale"] == pytest.approx(slope, rel=0.3)
        assert areas["scale"] > areas["unscale"] or slope < 1


def test_equal_seeds_give_equal_draws_and_probability_is_kept() -> None:
    transform = RandomMonotoneScaling(0.3)
    before = sample(1)

    def run(seed: int) -> list[dict[str, Any]]:
        torch.manual_seed(seed)
        return [transform(copied(before)) for _ in range(60)]

    first, again, other = run(5), run(5), run(6)
    assert all(np.array_equal(a["img"], b["img"]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a["img"], b["img"]) for a, b in zip(first, other, strict=True))
    warped = sum("monotone_warp" in r for r in first)
    assert 8 <= warped <= 30
    untouched = next(r for r in first if "monotone_warp" not in r)
    assert np.array_equal(untouched["img"], before["img"])


def test_workers_of_a_loader_draw_different_warps_twice_the_same() -> None:
    from functools import partial

    from mmengine.dataset import worker_init_fn
    from torch.utils.data import DataLoader, Dataset

    class Maps(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> NDArray[Any]:
            out: NDArray[Any] = RandomMonotoneScaling(1.0)(copied(sample(0)))["gt_seg_map"]
            return out

    def load() -> list[NDArray[Any]]:
        start = partial(worker_init_fn, num_workers=2, rank=0, seed=3)
        return [x[0].numpy() for x in DataLoader(Maps(), num_workers=2, worker_init_fn=start)]

    first, again = load(), load()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.tobytes() for a in first}) == 4


def test_float_and_grey_images_keep_their_dtype() -> None:
    for image in (
        np.random.default_rng(0).random((9, 9, 1)).astype(np.float32),
        np.random.default_rng(0).random((9, 9)),
        np.random.default_rng(0).integers(0, 60000, (9, 9)).astype(np.uint16),
    ):
        after = RandomMonotoneScaling(1.0)({"img": image.copy()})["img"]
        assert after.dtype == image.dtype
        assert after.shape == image.shape
        assert image.min() <= after.min() <= after.max() <= image.max()


def test_transforms_are_in_the_registry() -> None:
    from mmseg.registry import TRANSFORMS

    assert isinstance(
        TRANSFORMS.build({"type": "RandomMonotoneScaling", "ratio": 3.0}), RandomMonotoneScaling
    )
    assert isinstance(TRANSFORMS.build({"type": "ScaleObjects", "background": 0}), ScaleObjects)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RandomMonotoneScaling(1.5), "prob must lie within [0, 1], not 1.5"),
        (lambda: RandomMonotoneScaling(convention="sacle"), "Did you mean 'scale'?"),
        (lambda: RandomMonotoneScaling(ratio=0.5), "ratio must be above 1"),
        (lambda: RandomMonotoneScaling(raito=2.0), "Did you mean 'ratio'?"),
        (lambda: RandomMonotoneScaling(warp="gird"), "Did you mean 'grid'?"),
        (lambda: ScaleObjects((2.0, 1.0)), "factors be a range above 0; got 0.5 and 2 to 1"),
        (lambda: ScaleObjects(min_area=0), "min_area and max_objects must be at least 1; got 0, 8"),
    ],
)
def test_wrong_settings_are_told_at_once(make: Any, text: str) -> None:
    with pytest.raises(LSEError) as caught:
        make()
    assert text in str(caught.value)


@pytest.mark.parametrize("transform", [RandomMonotoneScaling(1.0), ScaleObjects(prob=1.0)])
def test_maps_of_another_size_are_refused(transform: Any) -> None:
    results = sample(0)
    results["gt_seg_map"] = results["gt_seg_map"][:-1]
    with pytest.raises(ShapeError, match=r"gt_seg_map .* is of another size than the image"):
        transform(results)


# objects, each on its own ---------------------------------------------------------------------


def two_squares() -> dict[str, Any]:
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[20:30, 10:20] = 1
    labels[25:35, 50:60] = 2
    labels[0:5] = IGNORED
    image = np.full((60, 80, 3), 50, dtype=np.uint8)
    image[labels == 1] = (200, 0, 0)
    image[labels == 2] = (0, 200, 0)
    other = np.where(labels > 0, labels, 9).astype(np.int64)
    return {"img": image, "gt_seg_map": labels, "other": other, "seg_fields": ["gt_seg_map", "other"]}


def test_each_object_is_resized_about_its_centre() -> None:
    before = two_squares()
    torch.manual_seed(0)
    after = ScaleObjects((0.5, 2.0), 1.0, background=0)(copied(before))
    labels = after["gt_seg_map"]
    sides = sorted(float(np.sqrt((labels == kind).sum())) for kind in (1, 2))
    assert sides == pytest.approx(sorted(10 * after["object_factors"]), abs=1.1)
    for kind in (1, 2):
        for axis in (0, 1):
            was, now = (np.nonzero(m == kind)[axis].mean() for m in (before["gt_seg_map"], labels))
            assert now == pytest.approx(was, abs=0.6)
    # colours follow labels, away from edges
    for kind, channel in ((1, 0), (2, 1)):
        inner = np.zeros(labels.shape, dtype=bool)
        rows, cols = np.nonzero(labels == kind)
        inner[rows.min() + 2 : rows.max() - 1, cols.min() + 2 : cols.max() - 1] = True
        assert (after["img"][inner][:, channel] > 190).all()


def test_factor_one_changes_nothing() -> None:
    before = two_squares()
    after = ScaleObjects((1.0, 1.0), 1.0, background=0)(copied(before))
    for name in ("img", "gt_seg_map", "other"):
        assert np.array_equal(after[name], before[name])


def test_background_and_ignored_pixels_stay() -> None:
    before = two_squares()
    for seed in range(10):
        torch.manual_seed(seed)
        after = ScaleObjects((0.4, 2.5), 1.0, background=0)(copied(before))
        labels = after["gt_seg_map"]
        covered = np.isin(labels, (1, 2))
        assert ((labels == IGNORED) == ((before["gt_seg_map"] == IGNORED) & ~covered)).all()
        far = np.ones(labels.shape, bool)
        far[8:48, :] = False
        assert np.array_equal(after["img"][far], before["img"][far])


def test_what_is_left_is_ignored_where_there_is_no_background_class() -> None:
    before = two_squares()
    before["gt_seg_map"][before["gt_seg_map"] == 0] = 4
    options: dict[str, Any] = {"factors": (0.5, 0.5), "prob": 1.0, "classes": [1, 2]}
    after = ScaleObjects(**options)(copied(before))["gt_seg_map"]
    objects = np.isin(before["gt_seg_map"], (1, 2))
    left = objects & ~np.isin(after, (1, 2))
    assert left.sum() > 100
    assert (after[left] == IGNORED).all()
    assert np.array_equal(after[~objects], before["gt_seg_map"][~objects])
    after = ScaleObjects(**options, background=4)(copied(before))["gt_seg_map"]
    assert (after[left] == 4).all()


def test_other_maps_move_with_the_objects() -> None:
    before = two_squares()
    torch.manual_seed(3)
    after = ScaleObjects((1.5, 1.5), 1.0, background=0)(copied(before))
    for kind in (1, 2):
        inside = after["gt_seg_map"] == kind
        assert (after["other"][inside] == kind).mean() > 0.8  # all but the edge, see the next line
        edge = inside & (after["other"] != kind)
        rows, cols = np.nonzero(inside)
        inner = inside.copy()
        inner[[rows.min(), rows.max()]] = False
        inner[:, [cols.min(), cols.max()]] = False
        assert not (edge & inner).any()


def test_regions_of_a_class_are_objects_of_their_own() -> None:
    labels = np.zeros((40, 80), dtype=np.uint8)
    labels[15:25, 10:20] = labels[15:25, 60:70] = 1
    results = {"img": np.zeros((40, 80, 3), np.uint8), "gt_seg_map": labels, "seg_fields": ["gt_seg_map"]}
    torch.manual_seed(0)
    apart = ScaleObjects((1.5, 1.5), 1.0, background=0)(copied(results))
    assert len(apart["object_factors"]) == 2
    assert np.nonzero(apart["gt_seg_map"])[1].mean() == pytest.approx(39.5, abs=0.5)
    cols = np.nonzero(apart["gt_seg_map"][:, :40])[1]
    assert cols.mean() == pytest.approx(14.5, abs=0.5)
    together = ScaleObjects((1.2, 1.2), 1.0, background=0, regions=False)(copied(results))
    assert len(together["object_factors"]) == 1
    cols = np.nonzero(together["gt_seg_map"][:, :40])[1]
    assert cols.mean() == pytest.approx(39.5 - 25 * 1.2, abs=0.5)


def test_small_objects_and_images_without_any_stay() -> None:
    before = two_squares()
    after = ScaleObjects((2.0, 2.0), 1.0, background=0, min_area=101)(copied(before))
    assert np.array_equal(after["gt_seg_map"], before["gt_seg_map"])
    after = ScaleObjects((2.0, 2.0), 1.0, background=0, max_objects=1)(copied(before))
    assert len(after["object_factors"]) == 1
