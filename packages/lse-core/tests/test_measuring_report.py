"""report.html of `lse measure`: one file that runs and loads nothing, whatever names are in it."""

import base64
import io
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lse_core.errors import OutputError
from lse_core.measuring.figures import nero_figure, plain
from lse_core.measuring.measurement import (
    Case,
    Counts,
    Estimate,
    Film,
    Layer,
    Layers,
    Level,
    Measurement,
    Orbit,
    Site,
    Sweep,
)
from lse_core.measuring.report import write_report

EVIL = "<script>alert('$1_{&}')</script>"
LEVELS = (0.5, 1.0, 2.0)


class Page(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def pictures(self) -> dict[str, bytes]:
        found = [values for tag, values in self.tags if tag == "img"]
        assert all(values["src"].startswith("data:image/") for values in found)
        return {values["alt"]: base64.b64decode(values["src"].split(",")[1]) for values in found}


def sweep(change="objects", **more) -> Sweep:
    case = Case(
        picture=f"{EVIL}.png", name=EVIL, answer=0, label=1, reference=0.9, probability=(0.5, 0.9, None),
        answers=(1, 0, None), confidence=(0.5, 0.9, None), distance=(0.4, 0, None), changed=(1, 0, None),
    )  # fmt: skip
    levels = tuple(
        Level(level=level, cases=1, probability=0.5, worst=0.25, changed=0.5, invariance_error=0.2, **more)
        for level in LEVELS
    )
    frames = np.random.default_rng(0).integers(0, 255, (3, 12, 16, 3), dtype=np.uint8)
    estimate = Estimate(value=0.123, low=0.1, high=0.2)
    orbit = Orbit(
        factors=LEVELS, cases=1, probability=((0.1, 0.2, None),) * 3, changed=(), invariance_error=()
    )
    return Sweep(
        change=change, unit="factor" if change == "objects" else "ratio", reference=1, pictures=1,
        invariance_error=estimate, changed=estimate, levels=levels, orbit=orbit, worst=(0,), cases=(case,),
        films=(Film(case=0, frames=frames),),
        **({"accuracy": estimate} if "accuracy" in more else {}),
    )  # fmt: skip


def measurement(name="plain", **more) -> Measurement:
    values = {
        "task": "classification", "classes": 2, "class_names": (EVIL, "cup"), "settings": {},
        "counts": Counts(pictures=1, unreadable=2), "problems": (f"{EVIL}.jpg cannot be read",),
        "sweeps": (sweep(accuracy=0.75, calibration_error=0.1), sweep("warps")),
    }  # fmt: skip
    return Measurement(model=name, **{**values, **more})


def opened(folder, *measured, **more) -> Page:
    path = write_report(measured, folder, **more)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_runs_and_loads_nothing_and_shows_strange_names_as_they_are(tmp_path):
    names = (EVIL, "_hidden", "bell\x07 and $x", "日本")
    page = opened(tmp_path, *map(measurement, names), command=["lse", "measure", f"{EVIL}.onnx"])
    assert {tag for tag, _ in page.tags} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "h3",
            "div",
            "p",
            "table",
            "tr",
            "th",
        ),
        *("td", "small", "strong", "figure", "figcaption", "img", "br", "code", "pre", "ul", "li"),
    }
    assert not [key for _, values in page.tags for key in values if key.startswith("on") or key == "href"]
    policy = next(values for _, values in page.tags if values.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for shown in (f"{EVIL}.png", f"{EVIL}.jpg cannot be read", *names):
        assert shown in page.text
    assert "Left out: 2 pictures that cannot be read." in page.text
    assert "first answer" in page.text
    assert "lse measure '<script>alert('\"'\"'$1_{&}'\"'\"')</script>.onnx'" in page.text


def test_figures_are_well_formed_and_name_every_model(tmp_path):
    names = (EVIL, "_hidden", "bell\x07 and $x")
    page = opened(tmp_path, *map(measurement, names))
    svgs = {alt: data for alt, data in page.pictures.items() if data.startswith(b"<?xml")}
    assert len(svgs) >= 6
    texts = {alt: "".join(ElementTree.fromstring(svg).itertext()) for alt, svg in svgs.items()}
    for name in ("<script>alert('$1", "_hidden", "bell� and $x"):
        assert name in texts["Changed answers, % by level, a line for each model"]
    assert {alt.split(" by ")[0] for alt in texts} >= {"Accuracy, %", "InvE", "Expected calibration error, %"}
    assert plain("x" * 40 + "end.onnx", 32) == "x" * 20 + "…xxxend.onnx"


def test_frames_of_the_worst_cases_are_shown_with_their_answers(tmp_path):
    page = opened(tmp_path, measurement())
    frames = {alt: data for alt, data in page.pictures.items() if alt.startswith(f"{EVIL}.png at factor")}
    assert [alt.rsplit(" ", 1)[1] for alt in frames] == ["0.5", "1", "2"]
    original = measurement().sweeps[0].films[0].frames[1]
    seen = np.asarray(Image.open(io.BytesIO(frames[f"{EVIL}.png at factor 1"])).convert("RGB"))
    assert seen.shape == (12, 16, 3)
    assert np.abs(seen.astype(float).mean((0, 1)) - original.mean((0, 1))).max() < 12
    marked = [values for tag, values in page.tags if values.get("class") == "changed"]
    assert len(marked) == 2  # the first frame of each sweep; the last has no answer


def test_models_stand_beside_each_other_with_intervals_sites_and_layers(tmp_path):
    layers = Layers(
        layers=(
            Layer(name="conv1", stage="image", lie_derivative=1.5, own=1.5, share=0.4),
            Layer(name="", stage=EVIL, lie_derivative=2, own=0.5, share=0.6),
        ),
        sites=(EVIL,), command="lse adapt net --site x",
    )  # fmt: skip
    sites = (
        Site(name="image", displacement_pixels=1.234, residual=0.0123),
        Site(name="s", displacement_pixels=0),
    )
    page = opened(tmp_path, measurement(layers=layers), measurement("adapted", sites=sites))
    assert page.text.count("0.123 0.100 to 0.200") == 4  # two models, two changes
    for shown in ("1.23", "1.2e-02", "the model itself", "60.0", "Advice.", "lse adapt net --site x"):
        assert shown in page.text
    bars = page.pictures["Share of each stage in percent"]
    assert {"60%", "40%"} <= set(ElementTree.fromstring(bars).itertext())
    assert "Advice" not in opened(tmp_path, measurement()).text


def test_segmentors_and_missing_numbers(tmp_path):
    estimate = Estimate(value=0.5, low=0.4, high=0.6)
    levels = tuple(Level(level=r, cases=1, miou=0.5, equivariance_error=3.0, changed=0.5) for r in (1, 2))
    case = Case(picture="street.png", changed=(0, 0.5), miou=(1, 0.5), probability=(0.8, 0.4), reference=0.8)
    film = Film(case=0, frames=np.zeros((2, 8, 8, 3), dtype=np.uint8))
    segmented = Sweep(
        change="warps", unit="ratio", reference=1, pictures=1, miou=estimate, equivariance_error=estimate,
        changed=estimate, levels=levels, worst=(0,), cases=(case,), films=(film,),
    )  # fmt: skip
    page = opened(tmp_path, measurement("seg", task="segmentation", class_names=None, sweeps=(segmented,)))
    for shown in ("EquE", "mIoU, %", "50.0 40.0 to 60.0", "of its pixels", "mIoU 0.50"):
        assert shown in page.text
    empty = Sweep(change="rotation", unit="degrees", reference=0, pictures=0)
    assert "turned about" in opened(tmp_path, measurement(sweeps=(empty,))).text
    opened(tmp_path, measurement(sweeps=()))


def test_a_nero_plot_writes_each_cell(tmp_path):
    data = base64.b64decode(nero_figure(sweep().orbit).split(",")[1])
    texts = list(ElementTree.fromstring(data).itertext())
    assert texts.count("0.10") == 3
    assert {"factor in x", "factor in y"} <= set(texts)


def test_the_same_measurement_gives_the_same_page_and_file_names_may_be_no_text(tmp_path):
    strange = measurement("caf\udce9")
    first = write_report([strange], tmp_path).read_bytes()
    assert write_report([strange], tmp_path).read_bytes() == first
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_report([strange], tmp_path / "file")
