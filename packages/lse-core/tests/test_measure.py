"""`lse_core.measure` against naive computations in float64, and its laws."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from lse_core import LSEError, Measurement, Preprocess, SeparableWarp, measure
from lse_core.cli import main
from lse_core.measuring.compositing import cut_out
from lse_core.measuring.measurement import Results, read_results, results_schema
from lse_core.measuring.running import measure_subjects
from lse_core.measuring.statistics import calibration_error, estimate
from lse_core.measuring.subjects import subject
from lse_core.measuring.sweeps import Plan, _rotated, rotation_views, warp_views
from lse_core.random import random_log_slopes
from lse_core.resample import scale

pytest.importorskip("cv2")

HOW = Preprocess(channels=3, size=(24, 24), crop_pct=0.75, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
PLAN: dict[str, Any] = {"factors": (0.5, 1.0, 1.6), "ratios": (1.0, 2.0), "orbit": (0.5, 1.0, 2.0), "seed": 5}
CLASSES = 4


class Small(nn.Module):
    """A classifier in float64, so that it can be followed to the last digit."""

    def __init__(self, seed: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 5, 2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(3),
                nn.Flatten(),
                nn.Linear(72, classes),
            ).double()
            nn.init.normal_(self.net[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures in folders of two classes, each with a disc and its mask; the first has two objects."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(1)
    y, x = np.mgrid[:36, :48]
    for number in range(6):
        picture = np.kron(draw.integers(0, 256, (9, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        disc = (y - 16 - number) ** 2 + (x - 24) ** 2 < 49
        picture[disc] = draw.integers(0, 256, 3)
        mask = disc.astype(np.uint8)
        if number == 0:
            mask[2:6, 2:8] = 2
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
        Image.fromarray(mask if number == 0 else mask * 255).save(file.with_suffix(".mask.png"))
    return folder


@pytest.fixture(scope="module")
def measured(photos: Path) -> Measurement:
    return measure(
        Small(), photos, preprocess=HOW, labels="folders", class_names=("b", "x", "a", "y"),
        changes=["objects", "warps", "rotation"], **PLAN,
    )  # fmt: skip


def naive_softmax(model: nn.Module, picture: np.ndarray) -> np.ndarray:
    """Probabilities of a picture (24, 24, 3) of values within [0, 1], by hand."""
    x = (picture.astype(np.float64).astype(np.float32) - np.float32(HOW.mean)) / np.float32(HOW.std)
    with torch.no_grad():
        scores = model(torch.from_numpy(x).permute(2, 0, 1)[None].double())[0].numpy()
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def naive_prepared(picture: np.ndarray) -> np.ndarray:
    """Shorter side to 32 pixels, the middle 24 of it; Pillow's bicubic."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((int(32 * width / height), 32), Image.Resampling.BICUBIC)
    left, top = round((small.width - 24) / 2), round((small.height - 24) / 2)
    return np.asarray(small)[top : top + 24, left : left + 24].astype(np.float32) / 255


def test_objects_equal_a_naive_computation(photos: Path, measured: Measurement) -> None:
    model, factors = Small(), PLAN["factors"]
    distances, changed, right, by_factor = [], [], [], {factor: [] for factor in factors}
    for name in [f"a/{n}.png" for n in (0, 2, 4)] + [f"b/{n}.png" for n in (1, 3, 5)]:
        picture = np.asarray(Image.open(photos / name))
        mask = np.asarray(Image.open((photos / name).with_suffix(".mask.png")))
        for value in sorted(set(mask.flatten().tolist()) - {0}):
            cut = cut_out(picture, mask == value)
            p = {f: naive_softmax(model, naive_prepared(cut.resized(f, f))) for f in factors}
            first = int(p[1.0].argmax())
            for factor in factors:
                by_factor[factor].append(p[factor][first])
                right.append(int(p[factor].argmax()) == {"a": 2, "b": 0}[name[0]])
                if factor != 1.0:
                    distances.append(((p[factor] - p[1.0]) ** 2).sum())
                    changed.append(int(p[factor].argmax()) != first)
    sweep = measured.sweep("objects")
    assert sweep is not None
    assert (sweep.pictures, len(sweep.cases)) == (6, 7)
    assert sweep.invariance_error is not None
    assert sweep.changed is not None
    assert sweep.accuracy is not None
    assert sweep.invariance_error.value == pytest.approx(np.mean(distances), abs=1e-6)
    assert np.mean(distances) > 0.01  # else nothing was compared
    assert sweep.changed.value == pytest.approx(np.mean(changed), abs=1e-6)
    assert sweep.accuracy.value == pytest.approx(np.mean(right), abs=1e-6)
    for level in sweep.levels:
        assert level.probability == pytest.approx(np.mean(by_factor[level.level]), abs=1e-6)
        assert level.worst == pytest.approx(np.min(by_factor[level.level]), abs=1e-6)
    totals = [case.invariance_error or 0.0 for case in sweep.cases]
    assert [totals[case] for case in sweep.worst] == sorted(totals, reverse=True)


def test_warps_equal_a_naive_computation(photos: Path, measured: Measurement) -> None:
    sweep = measured.sweep("warps")
    assert sweep is not None
    case = next(case for case in sweep.cases if case.picture == "b/3.png" and case.number == 1)
    base = torch.from_numpy(naive_prepared(np.asarray(Image.open(photos / "b/3.png")))).permute(2, 0, 1)
    plan = Plan(**PLAN)
    warp = warp_views(base, plan, "b/3.png", 1).warp
    assert warp is not None
    w = warp(("ratio", 2.0, 2.0))
    slopes = torch.cat([w.x.slopes, w.y.slopes])
    assert 0.5 <= float(slopes.min()) < float(slopes.max()) <= 2
    p = [
        naive_softmax(Small(), scale(base[None], v)[0].permute(1, 2, 0).numpy())
        for v in (SeparableWarp.identity(), w)
    ]
    assert case.invariance_error == pytest.approx(((p[0] - p[1]) ** 2).sum(), abs=1e-6)


def test_an_orbit_has_the_levels_on_its_diagonal(measured: Measurement) -> None:
    sweep = measured.sweep("objects")
    assert sweep is not None
    assert sweep.orbit is not None
    assert sweep.orbit.factors == (0.5, 1.0, 2.0)
    assert sweep.orbit.cases == 7
    half = next(level for level in sweep.levels if level.level == 0.5)
    assert sweep.orbit.probability[0][0] == pytest.approx(half.probability, abs=1e-12)
    assert sweep.orbit.invariance_error[0][0] == pytest.approx(half.invariance_error, abs=1e-12)
    assert sweep.orbit.invariance_error[1][1] == 0
    assert sweep.orbit.invariance_error[0][2] != sweep.orbit.invariance_error[2][0]


def test_rotation_turns_counter_clockwise() -> None:
    picture = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_grid = _rotated(picture, 90 - 1e-9, "bilinear")
    torch.testing.assert_close(by_grid, _rotated(picture, 90.0, "bilinear"), atol=1e-6, rtol=0)
    bright = torch.zeros(1, 9, 9)
    bright[0, 4, 8] = 1  # on the right
    assert _rotated(bright, 90.0, "bilinear")[0, 0, 4] == 1  # at the top
    views = rotation_views(picture.float(), Plan(angles=(0.0, 90.0)))
    assert torch.equal(views.moved(90.0, torch.arange(81).view(9, 9)).flatten().sort()[0], torch.arange(81))


def test_a_model_that_sees_no_place_is_invariant_to_quarter_turns(photos: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 5 * x.mean((2, 3))

    found = measure(Mean(), photos, preprocess=HOW, changes=["rotation"], angles=(0.0, 90.0, 180.0, 45.0))
    sweep = found.sweep("rotation")
    assert sweep is not None
    errors = {level.level: level.invariance_error or 0.0 for level in sweep.levels}
    assert errors[90.0] < 1e-10
    assert errors[180.0] < 1e-10
    assert errors[45.0] > 1e-8


def test_two_models_in_one_report_equal_two_reports(photos: Path) -> None:
    subjects = [subject(Small(seed), f"model {seed}", preprocess=HOW) for seed in (1, 2)]
    plan = Plan(**PLAN)
    together = measure_subjects(subjects, [photos], plan, labels=None)
    for one, found in zip(subjects, together, strict=True):
        (alone,) = measure_subjects([one], [photos], plan)
        assert text_of(found) == text_of(alone)


def text_of(found: Measurement) -> str:
    return Results(lse_core="0", measurements=(found,)).to_json()


def test_the_same_seed_gives_the_same_bytes(photos: Path, measured: Measurement) -> None:
    options: dict[str, Any] = {
        "preprocess": HOW, "labels": "folders", "class_names": ("b", "x", "a", "y"),
        "changes": ["objects", "warps", "rotation"],
    }  # fmt: skip
    assert text_of(measure(Small(), photos, **options, **PLAN)) == text_of(measured)
    assert text_of(measure(Small(), photos, **options, **{**PLAN, "seed": 6})) != text_of(measured)


def test_an_interrupted_measurement_goes_on_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = measure(Small(), photos, preprocess=HOW, **PLAN)
    with pytest.raises(KeyboardInterrupt):
        measure(Small(), photos, preprocess=HOW, rows=tmp_path, on_picture=stop, **PLAN)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    assert data.count(b"\n") == 4  # settings, and three pictures
    file.write_bytes(data[:-40])  # as a power cut leaves it
    calls = []

    class Counting(Small):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    Counting.__qualname__ = Small.__qualname__
    resumed = measure(Counting(), photos, preprocess=HOW, rows=tmp_path, name="Small", **PLAN)
    assert text_of(resumed) == text_of(whole)
    done = len(calls)
    assert text_of(
        measure(Counting(), photos, preprocess=HOW, rows=tmp_path, name="Small", **PLAN)
    ) == text_of(whole)
    assert len(calls) == done + 1  # the picture on which a model is tried
    measure(Small(7), photos, preprocess=HOW, rows=tmp_path, **PLAN)  # another model has rows of its own
    assert len(list(tmp_path.iterdir())) == 2


def test_views_with_nan_count_nowhere_else(photos: Path) -> None:
    class Broken(Small):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            dark = x[:, 0].mean((1, 2)) < self.limit
            return torch.where(dark[:, None], torch.nan, out)

        limit = -math.inf

    whole, broken = Broken(), Broken()
    broken.limit = 0.05
    options: dict[str, Any] = {
        "preprocess": HOW,
        "changes": ["objects"],
        "factors": (0.5, 1.0, 2.0),
        "orbit": (),
    }
    good, found = (measure(m, photos, **options) for m in (whole, broken))
    sweeps = [m.sweep("objects") for m in (good, found)]
    assert sweeps[0] is not None
    assert sweeps[1] is not None
    lost = found.counts.not_finite
    assert 0 < lost < 21
    assert good.counts.not_finite == 0
    for one, other in zip(sweeps[0].cases, sweeps[1].cases, strict=True):
        if other.answer is None:  # no reference: nothing of the case is known
            assert other.probability == (None, None, None)
        else:
            assert all(b is None or a == b for a, b in zip(one.distance, other.distance, strict=True))
    json.loads(text_of(found), parse_constant=lambda text: pytest.fail(f"{text} in JSON"))


def test_calibration_equals_a_naive_computation() -> None:
    draw = np.random.default_rng(3)
    confidence, right = draw.uniform(0.3, 1, 500), (draw.uniform(size=500) < 0.6).astype(float)
    right[::50] = np.nan
    known = ~np.isnan(right)
    naive = 0.0
    for k in range(15):
        inside = known & (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            naive += inside.sum() * abs(confidence[inside].mean() - right[inside].mean())
    assert calibration_error(confidence, right) == pytest.approx(naive / known.sum(), abs=1e-6)
    assert calibration_error(confidence, np.full(500, np.nan)) is None


def test_intervals_shrink_with_the_number_of_pictures() -> None:
    draw = np.random.default_rng(4)
    values = draw.normal(0.5, 0.1, (400, 3))
    widths = []
    for count in (25, 400):
        found = estimate(values[:count], np.arange(count), 0)
        assert found is not None
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(values[:count].mean(), abs=1e-12)
        widths.append(found.high - found.low)
    # the standard error of a mean over pictures; views of a picture are not independent draws
    error = values[:400].mean(1).std() / 20
    assert widths[1] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert widths[0] > 2 * widths[1]
    assert estimate(np.full((3, 2), np.nan), np.arange(3), 0) is None


class Dense(nn.Module):
    """A segmentor that judges each pixel on its own, and so is equivariant up to resampling."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * x + torch.tensor([0, 0.01, 0.02]).view(3, 1, 1)  # no two classes score the same


def test_a_pixelwise_segmentor_is_nearly_equivariant(photos: Path) -> None:
    class Fixed(Dense):
        """Says the same wherever the content moved."""

        def forward(self, x: Tensor) -> Tensor:
            columns = torch.linspace(-9, 9, x.shape[3]).sin().expand(len(x), x.shape[2], -1)
            return torch.stack([columns, -columns, 0 * columns], 1) * 8

    plan: dict[str, Any] = {"factors": (1.0, 1.5), "ratios": (1.0, 2.0), "orbit": ()}
    for changes in (["objects"], ["warps"], ["rotation"]):
        good, bad = (
            measure(m, photos, preprocess=HOW, changes=changes, angles=(0.0, 90.0), **plan)
            for m in (Dense(), Fixed())
        )
        assert good.task == "segmentation"
        one, other = good.sweeps[0], bad.sweeps[0]
        assert one.miou is not None
        assert other.miou is not None
        assert one.miou.value > 0.8
        assert one.miou.value > other.miou.value
        assert (one.equivariance_error is not None) == (changes == ["warps"])
        reference = one.levels[0]
        assert (reference.level, reference.miou, reference.changed) == (one.reference, 1.0, 0.0)
        assert len(one.films) == 6 + (changes == ["objects"]) or changes == ["warps"]


def test_label_maps_are_laid_out_as_their_pictures(photos: Path, tmp_path: Path) -> None:
    for file in photos.rglob("*.png"):
        if not file.name.endswith(".mask.png"):
            values = np.asarray(Image.open(file)).astype(int)
            Image.fromarray((values + np.array([0, 0.3, 0.6])).argmax(2).astype(np.uint8)).save(
                tmp_path / file.name
            )
    (tmp_path / "3.png").unlink()
    how = Preprocess(channels=3, size=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = measure(
        Dense(), photos, preprocess=how, label_maps=tmp_path, changes=["warps"], ratios=(1.0,), orbit=()
    )
    assert found.sweeps[0].levels[0].miou == 1.0  # the brightest colour of each pixel is the answer
    assert found.counts.bad_masks == 1
    assert "no label map" in found.problems[0]
    assert sum(case.miou == () or case.miou == (None,) for case in found.sweeps[0].cases) == 2


def test_canonicalizers_are_watched(photos: Path) -> None:
    shift = SeparableWarp.from_log_slopes(
        random_log_slopes(1, 4, 2.0, generator=torch.Generator().manual_seed(0))
    )

    class Adapted(Small):
        def __init__(self) -> None:
            super().__init__()
            self.sites = {"image": SimpleNamespace(observers=())}

        def forward(self, x: Tensor) -> Tensor:
            for tell in self.sites["image"].observers:
                tell(
                    SimpleNamespace(
                        warp=shift.broadcast(len(x)),
                        solution=SimpleNamespace(residual=torch.full((len(x),), 0.25)),
                    )
                )
            return super().forward(x)

    model = Adapted()
    found = measure(model, photos, preprocess=HOW, changes=["warps"], **PLAN)
    (site,) = found.sites
    u = torch.linspace(0, 1, 17)
    x, y = (torch.abs(m(u[None])[0] - u) * 23 for m in (shift.x, shift.y))
    naive = float((x[None, :] ** 2 + y[:, None] ** 2).sqrt().mean())
    assert (site.name, site.residual) == ("image", pytest.approx(0.25))
    assert site.displacement_pixels == pytest.approx(naive, rel=1e-4)
    assert model.sites["image"].observers == ()
    assert measure(Small(), photos, preprocess=HOW, changes=["warps"], **PLAN).sites == ()


def test_modes_are_put_back_and_grey_models_measured(photos: Path) -> None:
    grey = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    how = Preprocess(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,))
    found = measure(grey, photos, preprocess=how, orbit=(), warps=1)
    assert grey.training
    assert grey[1].training
    assert {sweep.change for sweep in found.sweeps} == {"objects", "warps"}
    assert found.sweeps[0].films[0].frames.shape == (13, 8, 8, 3)


def test_the_schema_tells_every_number() -> None:
    schema = results_schema()
    told = {name for part in schema["$defs"].values() for name in part["properties"]}
    assert {"invariance_error", "calibration_error", "displacement_pixels", "orbit"} <= told
    assert "films" not in told
    undescribed = [
        f"{part}.{name}"
        for part, body in schema["$defs"].items()
        for name, value in body["properties"].items()
        if "description" not in value
        and name not in ("value", "name", "orbit", "layers", "counts", "classes")
    ]
    assert undescribed == []


FACTORY = """
import torch
from torch import nn
from lse_core import Preprocess, attach

def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    attach(made, preprocess=Preprocess(channels=3, size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3))
    return made
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "measured_model.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "measured_model:model"


def test_the_command_writes_what_it_prints(photos: Path, factory: str, tmp_path: Path) -> None:
    args = ["measure", factory, factory, str(photos), "--trust", "--factors", "0.5,1,2", "--orbit", "3"]
    result = CliRunner().invoke(main, [*args, "--csv", "rows.csv", "--json"])
    assert result.exit_code == 0, result.output
    found = read_results(tmp_path / "runs/measure/results.json")
    assert result.stdout == (tmp_path / "runs/measure/results.json").read_text(encoding="utf-8")
    assert [one.model for one in found.measurements] == [factory, f"{factory} (2)"]
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    case = found.measurements[0].sweeps[0].cases[0]
    assert float(rows[0]["probability"]) == pytest.approx(case.probability[0], abs=1e-8)
    assert len(rows) == 2 * (7 * 3 + 12 * 6)
    assert (tmp_path / "runs/measure/report.html").is_file()

    error = found.measurements[0].error
    assert error is not None
    plain = CliRunner().invoke(main, [*args, "--fail-above", str(error / 2)])
    assert plain.exit_code == 1
    assert "Objects resized on their own" in plain.stdout
    assert f"InvE of {factory} is {error:.4f}, above" in plain.stderr
    assert CliRunner().invoke(main, [*args, "--fail-above", str(2 * error)]).exit_code == 0


def test_faults_are_told_in_one_line(photos: Path, factory: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.csv").write_text("file,label\n0.png,7\n")
    (tmp_path / "other.csv").write_text("name,class\n0.png,7\n")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.png").write_bytes(b"no picture")
    seen = str(photos)
    faults = [
        ([factory], "no pictures were given"),
        ([factory, "empty"], "holds no pictures"),
        ([factory, "damaged"], "none of 1 pictures can be read"),
        ([factory, "missing"], "missing: no such file or folder"),
        (["resnet81", seen], "no timm model of this name"),
        ([seen, seen], "no model that an installed package can load"),
        (["resnet18", seen], "random weights"),
        (["resnet18", seen, "--weights", "bad.safetensors"], "cannot be read as weights"),
        ([factory, seen, "--weights", "bad.safetensors"], "goes with no model"),
        ([factory, seen, "--labels", "labels.csv"], "labels up to 7, but the model tells 3 classes apart"),
        ([factory, seen, "--labels", "folders"], "have 2 labels, but the model tells 3 classes apart"),
        ([factory, seen, "--labels", "other.csv"], "columns file and label"),
        ([factory, seen, "--masks", "bad.json"], "annotations of COCO"),
        ([factory, seen, "--masks", "none", "--change", "objects"], "no picture has a mask or a box"),
        ([factory, seen, "--factors", "0.5;2"], "neither a list"),
        ([factory, seen, "--factors", "0,1"], "factors"),
        ([factory, seen, "--device", "abacus"], "device 'abacus' cannot be used here"),
    ]
    for args, words in faults:
        result = CliRunner().invoke(main, ["measure", *args, "--trust", "--orbit", "0", "--out", "out"])
        assert result.exit_code in (1, 2), args
        assert words in result.stderr.strip().splitlines()[-1], (args, result.stderr)
    result = CliRunner().invoke(main, ["measure", factory, seen])
    assert "--trust" in result.stderr
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/results.json").write_text('{"methods": {}}')
    result = CliRunner().invoke(main, ["measure", factory, seen, "--trust", "--out", "out"])
    assert "choose another --out" in result.stderr
    assert (tmp_path / "out/results.json").read_text() == '{"methods": {}}'


def test_models_that_cannot_be_measured(photos: Path) -> None:
    how = Preprocess(channels=3, size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    single = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    for model, preprocess, words in (
        (nn.Flatten(), None, "does not say how its pictures are prepared: give --size, --mean, --std"),
        (single, how, "a single score"),
        (nn.Linear(5, 2), how, "cannot take pictures of 3 channels and 8 x 8 pixels"),
        (nn.Flatten(2), how, r"must answer with class scores"),
    ):
        with pytest.raises(LSEError, match=words):
            measure(model, photos, preprocess=preprocess)
    good = Small()
    with pytest.raises(LSEError, match=r"unknown change 'object'\. Did you mean 'objects'"):
        measure(good, photos, preprocess=HOW, changes=["object"])
    with pytest.raises(LSEError, match="factor"):
        measure(good, photos, preprocess=HOW, factor=(1.0,))
