"""Locally scaled photographs: what is pasted where, what is rejected and why, and runs that are killed."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lse_core import hookimpl, registry
from lse_core.cli import main
from lse_core.errors import DataError, LSEError, OutputError
from lse_data.compositing import hole_around
from lse_data.folder import ImageFolder
from lse_data.masks import read_mask
from lse_data.scaling import ScalingConfig, build_stages, scale_pictures
from lse_data.scaling import run as running
from lse_data.scaling.compositor import compose, front_to_back, place, soft_edge
from lse_data.scaling.picture import Source, make_versions
from lse_data.scaling.quality import area, in_one_piece, made_solid, smoothness
from lse_data.scaling.run import sources_of

H, W = 120, 160


def disc(at: tuple[int, int] = (60, 80), radius: int = 30) -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    return np.asarray((y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2)


def photograph(mask: np.ndarray | None = None) -> np.ndarray:
    """A striped red object on smooth green."""
    y, x = np.mgrid[:H, :W]
    values = np.stack([x // 2, 90 + y // 2, np.full((H, W), 60)], -1).astype(np.uint8)
    red = np.stack([np.full((H, W), 210), 20 + 40 * (x // 4 % 2), np.full((H, W), 40)], -1)
    where = disc() if mask is None else mask
    values[where] = red[where]
    return values


def write(folder: Path, name: str, mask: np.ndarray | None = None, picture: np.ndarray | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph(mask) if picture is None else picture).save(path)
    shown = disc() if mask is None else mask
    Image.fromarray(shown.astype(np.uint8) * 255).save(path.with_suffix(".mask.png"))


def made(folder: Path, name: str, **settings):
    config = ScalingConfig(**{"factors": (0.7, 1.0, 1.3), "format": "PNG", **settings})
    return make_versions(Source(folder / name, name), config, build_stages(config))


def opened(outcome, factor: str, kind: str = "images") -> np.ndarray:
    ending = f"_scale_{factor}.{'PNG' if kind == 'images' else 'png'}"
    (data,) = [data for path, data in outcome.files.items() if path.endswith(ending)]
    return np.asarray(Image.open(io.BytesIO(data)))


def test_areas_follow_the_factor_and_the_rest_is_the_background(tmp_path):
    write(tmp_path, "p.png")
    config = ScalingConfig(factors=(0.5, 0.7, 1.0, 1.3, 1.7), format="PNG")
    outcome = make_versions(Source(tmp_path / "p.png", "p.png"), config, build_stages(config))
    record, picture = outcome.record, photograph()
    assert record["status"] == "kept"
    areas = {result["factor"]: result["areas"][0] for result in record["results"]}
    for factor, seen in areas.items():
        assert abs(seen / (areas[1.0] * factor**2) - 1) < 0.03, factor
        assert (opened(outcome, f"{factor:g}", "masks") == 1).sum() == seen
    hole = hole_around(disc(), config.margin)
    backgrounds = build_stages(config).inpainter(picture, hole)
    background = np.where(hole[..., None], backgrounds, picture)
    for factor in (0.5, 0.7, 1.3, 1.7):
        beyond = ~hole_around(disc(radius=round(30 * factor) + 1), 4)  # the soft edge reaches 3 px times 1.3
        assert np.array_equal(opened(outcome, f"{factor:g}")[beyond], background[beyond]), factor
    again = opened(outcome, "1")
    seam = hole & ~(soft_edge(disc(), 1.0) == 1)
    assert np.abs(again.astype(int) - picture)[~seam].max() <= 2
    assert record["quality"]["outside_seam"] <= 2
    assert np.abs(again.astype(int) - picture)[seam].max() > 2  # so the seam is what the bound leaves out


def test_compositions_agree_with_pillows_resizing():
    """An object that is enlarged about its middle, against Pillow's own triangle filter."""
    mask = np.zeros((H, W), bool)
    mask[40:80, 60:100] = True
    picture, black = photograph(mask), np.zeros((H, W, 3), np.uint8)
    for factor, half in ((2.0, 40), (0.5, 10)):
        placed = place(mask, factor)
        assert placed.box == (80 - half, 60 - half, 80 + half, 60 + half)
        out, seen = compose(picture, black, [soft_edge(mask, 0)], [factor], [placed], [0])
        size = (2 * half, 2 * half)
        alone = Image.fromarray(picture[40:80, 60:100]).resize(size, Image.Resampling.BILINEAR)
        inner = (slice(60 - half + 2, 60 + half - 2), slice(80 - half + 2, 80 + half - 2))
        differ = np.abs(out[inner].astype(int) - np.asarray(alone)[2:-2, 2:-2])
        assert differ.max() <= 2
        assert seen.sum() == (2 * half) ** 2


def test_objects_are_anchored_moved_and_cut_off():
    mask = disc()
    assert place(mask, 0.5).fixed == (80.5, 60.5)
    foot = place(mask, 0.5, foot=True)
    assert foot.box[3] == 91  # the lower side stays
    high = disc(at=(32, 80))
    over = place(high, 1.3)
    assert set(over.beyond) == {"top"}
    moved = place(high, 1.3, fit=True)
    assert moved.beyond == {}
    assert moved.box[1] == pytest.approx(0)
    assert moved.box[3] - moved.box[1] == pytest.approx(61 * 1.3)
    assert place(disc(radius=55), 1.3, fit=True).beyond  # there is no room at all
    cut = np.zeros((H, W), bool)
    cut[70:, 60:100] = True
    small = place(cut, 0.5)
    assert small.box[3] == H  # it is still cut off by the lower edge
    assert place(cut, 1.3).beyond == {}
    out, seen = compose(
        photograph(cut), np.zeros((H, W, 3), np.uint8), [soft_edge(cut, 1)], [0.5], [small], [0]
    )
    assert seen[0, -1].sum() == 20
    assert out[-1, 80, 0] == 210  # as opaque at the edge as within


def test_order_and_factors_of_several_objects(tmp_path):
    masks = [disc(at=(60, 60), radius=24), disc(at=(60, 100), radius=20), disc(at=(70, 80), radius=8)]
    assert front_to_back(masks, "given") == [0, 1, 2]
    assert front_to_back(masks, "size") == [0, 1, 2]
    assert front_to_back(masks, "depth") == [2, 1, 0]
    numbers = np.zeros((H, W), np.uint8)
    for number, mask in enumerate(masks[:2], 1):
        numbers[mask & (numbers == 0)] = number
    write(tmp_path, "p.png", numbers > 0)
    Image.fromarray(numbers).save(tmp_path / "p.mask.png")
    by = {others: made(tmp_path, "p.png", others=others, crop=True) for others in ("same", "keep", "random")}
    told = {o: [r["factors"] for r in outcome.record["results"]] for o, outcome in by.items()}
    assert told["same"] == [[0.7, 0.7], [1.0, 1.0], [1.3, 1.3]]
    assert told["keep"] == [[0.7, 1.0], [1.0, 1.0], [1.3, 1.0]]
    assert told["random"][1] == [1.0, 1.0]
    assert told["random"] == [r["factors"] for r in made(tmp_path, "p.png", others="random", crop=True)
                              .record["results"]]  # fmt: skip
    seeds = [made(tmp_path, "p.png", others="random", crop=True, seed=s).record["results"] for s in range(6)]
    assert len({str([r["factors"] for r in results]) for results in seeds}) > 1
    # at factor 1.3 the second, which is nearer, covers a part of the first
    first, second = by["same"].record["results"][2]["areas"]
    assert first < 1.3**2 * (numbers == 1).sum() * 0.97
    assert abs(second / (1.3**2 * (numbers == 2).sum()) - 1) < 0.03


def test_quality_sees_holes_specks_and_implausible_sizes():
    whole, y, x = disc(), *np.mgrid[:H, :W]
    holes = whole & ~((y % 9 < 4) & (x % 9 < 4))
    assert smoothness(whole) > 0.98
    assert smoothness(holes) < 0.85
    assert np.array_equal(made_solid(whole & ~disc(radius=9)), whole)
    speck = whole | ((y < 3) & (x < 3))
    assert np.array_equal(made_solid(speck), whole)
    assert in_one_piece(whole) == 1
    assert in_one_piece(disc(at=(60, 40)) | disc(at=(60, 120))) == 0.5
    assert area(whole, (50, 30, 111, 91)) == 1
    assert area(disc(radius=2), None) < 0.5
    assert area(disc(radius=10), (20, 0, 140, 120)) < 0.2
    assert area(np.asarray(x < W - 4), None) == pytest.approx(0.25)


KINDS = {
    "nothing.png": ("no_object", "finds no object"),
    "empty.png": ("empty_mask", "mask of object 0 is empty"),
    "full.png": ("full_mask", "whole picture"),
    "almost.png": ("full_mask", "covers the whole picture"),
    "wide.png": ("cut_off", "cut off at the picture's left and right"),
    "high.png": ("does_not_fit", "at factor 1.3 object 0 reaches"),
    "damaged.png": ("unreadable", "cannot be read as a picture"),
    "other.png": ("bad_mark", "made for a picture of 40 x 30 pixels"),
}


def test_every_fault_is_counted_and_named(tmp_path):
    photos = tmp_path / "photos"
    bands = {"wide.png": np.mgrid[:H, :W][0] // 40 == 1, "high.png": disc(at=(32, 80)),
             "empty.png": np.zeros((H, W), bool), "full.png": np.ones((H, W), bool),
             "almost.png": np.pad(np.ones((H - 4, W - 4), bool), 2)}  # fmt: skip
    for name in KINDS:
        write(photos, name, bands.get(name))
    (photos / "nothing.mask.png").unlink()
    (photos / "damaged.png").write_bytes((photos / "damaged.png").read_bytes()[:300])
    Image.fromarray(np.full((30, 40), 255, np.uint8)).save(photos / "other.mask.png")
    write(photos, "grey.png", picture=photograph()[..., 0])
    write(photos, "deep.png", picture=photograph()[..., 0].astype(np.uint16) * 257)
    write(photos, "good.png")
    result = CliRunner().invoke(
        main, ["data", "scale-objects", str(photos), "--out", str(tmp_path / "set"), "--factors",
               "0.7:1.3:0.3", "--jobs", "1", "--json"]
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert {r["source"]: r["kind"] for r in told["rejects"]} == {
        name: kind for name, (kind, _) in KINDS.items()
    }
    for reject in told["rejects"]:
        assert KINDS[reject["source"]][1] in reject["reason"]
    assert (told["photographs"], told["kept"], told["written"], told["not_rgb"]) == (11, 3, 9, 2)
    assert told["rejected"]["full_mask"] == 2
    files = sorted(p.name for p in (tmp_path / "set/images").rglob("*.JPEG"))
    assert files == [f"{n}_scale_{f}.JPEG" for n in ("deep", "good", "grey") for f in ("0.7", "1.3", "1")]
    data = ImageFolder(tmp_path / "set/images", resolution=32)
    assert (data.config.variants, data.levels, len(data)) == (3, (0.7, 1.0, 1.3), 9)
    (mark,) = read_mask(tmp_path / "set/masks/object/good_scale_1.3.png")
    assert mark.size == (W, H)
    sheet = np.asarray(Image.open(tmp_path / "set/preview.png"))
    assert sheet.std() > 10
    bare = CliRunner().invoke(main, ["data", "scale-objects", str(photos / "nothing.png"), "--out",
                                     str(tmp_path / "none")], standalone_mode=False)  # fmt: skip
    assert isinstance(bare.exception, DataError)
    assert "all 1 photographs were rejected" in str(bare.exception)


def test_a_higher_quality_may_be_asked_for(tmp_path):
    y, x = np.mgrid[:H, :W]
    write(tmp_path, "good.png")
    write(tmp_path, "holes.png", disc() & ~((y % 9 < 4) & (x % 9 < 4)))
    assert made(tmp_path, "holes.png").record["status"] == "kept"
    record = made(tmp_path, "holes.png", min_quality=0.9).record
    assert record["kind"] == "low_quality"
    assert "(smoothness)" in record["reason"]
    assert made(tmp_path, "good.png", min_quality=0.9).record["status"] == "kept"
    assert made(tmp_path, "holes.png", min_quality=0.9, solid=True).record["status"] == "kept"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def children(process: int) -> list[int]:
    """The processes that a process has started, on Linux; none elsewhere."""
    stats = {int(stat.parent.name): state_of(stat) for stat in Path("/proc").glob("[0-9]*/stat")}
    return [child for child, (_, parent) in stats.items() if parent == process]


def state_of(stat: Path) -> tuple[str, int]:
    """What a process does ("Z" and "X": it has ended), and its parent."""
    try:
        state, parent, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return state, int(parent)


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path):
    photos = tmp_path / "photos"
    for number in range(6):
        write(photos, f"class/p{number}.png", disc(at=(60, 70 + 3 * number)))
    stages = {"detector": {"where": "beside"}, "segmenter": {}, "inpainter": {}}  # as the command has them
    config = ScalingConfig(factors=(0.8, 1.0), options=stages)
    whole = scale_pictures([photos], tmp_path / "whole", config)
    assert whole["made"] == 6
    call = "from lse_core.cli import main; main()"
    command = [sys.executable, "-c", call, "data", "scale-objects", str(photos),
               "--out", str(tmp_path / "killed"), "--factors", "0.8,1", "--jobs", "2"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    records = tmp_path / "killed/.unfinished/records"
    while not list(records.glob("*.json")) and process.poll() is None:
        time.sleep(0.005)
    workers = children(process.pid)
    assert len(workers) >= 2 or not Path("/proc").is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60
    while any(state_of(Path(f"/proc/{worker}/stat"))[0] not in "ZX" for worker in workers):
        assert time.monotonic() < end, "a process goes on without the one that started it"
        time.sleep(0.01)
    for path in (tmp_path / "killed").rglob("[!.]*.[Jp]*"):
        with Image.open(path) as picture:
            picture.load()  # what has its name is whole
    again = scale_pictures([photos], tmp_path / "killed", config)
    assert again["made"] < 6
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert scale_pictures([photos], tmp_path / "killed", config)["made"] == 0
    with pytest.raises(OutputError, match=r"other settings \(soft\)"):
        scale_pictures(
            [photos], tmp_path / "killed", ScalingConfig(factors=(0.8, 1.0), options=stages, soft=0)
        )
    # what changes is made again, what is gone is taken away
    write(photos, "class/p0.png", disc(at=(60, 60)))
    (photos / "class/p1.png").unlink()
    assert scale_pictures([photos], tmp_path / "killed", config)["made"] == 1
    assert not (tmp_path / "killed/images/class/p1_scale_1.JPEG").exists()
    fresh = scale_pictures([photos], tmp_path / "killed", ScalingConfig(factors=(1.0,)), force=True)
    assert fresh["counts"]["written"] == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="is not empty"):
        scale_pictures([photos], tmp_path / "mine", config)


def test_processes_give_the_same_bytes(tmp_path):
    for number in range(3):
        write(tmp_path / "photos", f"p{number}.png", disc(at=(60, 70 + 3 * number)))
    config = ScalingConfig(factors=(0.8, 1.0), others="random")
    scale_pictures([tmp_path / "photos"], tmp_path / "one", config)
    scale_pictures([tmp_path / "photos"], tmp_path / "two", config, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch):
    write(tmp_path, "p.png")

    def interrupted(*args):
        raise KeyboardInterrupt  # a signal would be lost where the tests themselves run in the background

    monkeypatch.setattr(running, "make_versions", interrupted)
    result = CliRunner().invoke(main, ["data", "scale-objects", str(tmp_path / "p.png"), "--out",
                                       str(tmp_path / "set"), "--jobs", "1"])  # fmt: skip
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr


class Plugin:
    """Stages of a stranger: a detector, a segmenter that fails, and an inpainter that paints all black."""

    @hookimpl
    def lse_segmenters(self):
        def failing():
            def segment(picture, boxes):
                raise RuntimeError("no memory")

            return segment

        return {"failing": failing}

    @hookimpl
    def lse_inpainters(self):
        return {"black": lambda: lambda picture, hole: np.zeros_like(picture),
                "small": lambda: lambda picture, hole: picture[:5]}  # fmt: skip


def test_stages_are_plugins(tmp_path):
    write(tmp_path, "p.png")
    registry().register(Plugin(), "stages-of-a-stranger")
    try:
        black = made(tmp_path, "p.png", inpainter="black")
        assert black.record["quality"]["outside_seam"] == 0  # what it does outside of the hole does not count
        picture = opened(black, "0.7")
        assert (picture[hole_around(disc()) & ~hole_around(disc(radius=23))] == 0).all()
        assert np.array_equal(picture[~hole_around(disc())], photograph()[~hole_around(disc())])
        small = made(tmp_path, "p.png", inpainter="small").record
        assert (small["kind"], "'small' gives (5, 160, 3)" in small["reason"]) == ("failed", True)
        boxes = {"detector": "boxes", "options": {"detector": {"boxes": (45, 25, 115, 95)}}}
        failed = made(tmp_path, "p.png", segmenter="failing", **boxes).record
        assert "RuntimeError: no memory" in failed["reason"]
        found = made(tmp_path, "p.png", **boxes).record
        assert found["status"] == "kept"
        assert abs(found["objects"][0]["area"] / disc().sum() - 1) < 0.05
    finally:
        registry().unregister("stages-of-a-stranger")
    for settings, words in (
        ({"detector": "file"}, "Did you mean 'files'"),
        ({"options": {"inpainter": {"methode": "ns"}}}, "Did you mean 'method'"),
        ({"options": {"inpainter": {"method": "lama"}}}, "method of OpenCV"),
        ({"soft": 4.0}, "need a margin of 12"),
        ({"factors": (0.0,)}, "factors"),
    ):
        with pytest.raises(LSEError, match=words):
            build_stages(ScalingConfig(**settings))


def test_names_of_files_stay_in_the_folder(tmp_path):
    write(tmp_path, "a/p.png")
    write(tmp_path, "a/p.jpg")
    with pytest.raises(DataError, match="would get one name"):
        sources_of([tmp_path], ScalingConfig())
    with pytest.raises(DataError, match="lies in no folder of a class"):
        sources_of([tmp_path / "a"], ScalingConfig(classes="folders"))
    boxes = {"detector": "boxes", "options": {"detector": {"boxes": (45, 25, 115, 95), "name": "../../etc"}}}
    record = made(tmp_path, "a/p.png", **boxes).record
    assert record["folder"] == "______etc"
    assert all(".." not in result["file"] for result in record["results"])


@pytest.mark.parametrize("text", ["0.7:1.3:13", "a,b", "1.3:0.7:0.1", "0.7:1.3:0"])
def test_factors_that_cannot_be_read(tmp_path, text):
    write(tmp_path, "p.png")
    result = CliRunner().invoke(main, ["data", "scale-objects", str(tmp_path), "--out", str(tmp_path / "set"),
                                       "--factors", text])  # fmt: skip
    assert result.exit_code == 2
    assert "LOW:HIGH:STEP" in result.stderr
    assert not (tmp_path / "set").exists()
