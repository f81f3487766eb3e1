"""The benchmarks of cost: what they count, how they read it, what they write and take up again."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lse_core.errors import LSEError
from lse_dec import adapt

BENCH = Path(__file__).parents[1] / "tools" / "bench"
TINY = ["--models", "test_vit", "--size", "64", "--batches", "1", "--rounds", "3", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


def bench(name: str) -> ModuleType:
    return importlib.import_module(name)


# counts ------------------------------------------------------------------------------------------------


def test_flops_are_those_of_torchs_counter_forward_and_backward():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2), nn.Linear(36, 16))
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    x = torch.randn(2, 3, 8, 8)

    def step() -> None:
        y = model(x)
        attention(y, y, y, need_weights=False)[0].sum().backward()

    with FlopCounterMode(display=False) as flops:
        step()
    counted = bench("costs.counts").count(step)
    assert counted.flops == flops.get_total_flops() > 0


@pytest.mark.parametrize(
    ("call", "kernels", "syncs"),
    [
        (lambda x: (x + 1) * 2, 2, 0),
        (lambda x: x.view(-1).unsqueeze(0).expand(4, -1).detach(), 0, 0),
        (lambda x: x.t().contiguous(), 1, 0),
        (lambda x: x.sum().item(), 1, 1),
        (lambda x: bool(x.sum() > 0), 2, 1),
        (lambda x: x[x > 0], 2, 1),
        (lambda x: x.nonzero(), 1, 1),
    ],
)
def test_views_are_no_kernels_and_values_for_the_host_are_syncs(call, kernels, syncs):
    x = torch.randn(8, 8)
    counted = bench("costs.counts").count(lambda: call(x))
    assert (counted.kernels, counted.syncs) == (kernels, syncs)


def test_traffic_is_what_operators_read_and_write():
    x, y = torch.randn(1000), torch.randn(1000)
    assert bench("costs.counts").count(lambda: x + y).traffic == 3 * 4000


def test_peak_is_what_was_allocated_at_once():
    big = 2**20  # floats

    def together() -> None:
        a, b = torch.ones(big), torch.ones(big)
        a.add_(b)

    def in_turn() -> None:
        torch.ones(big)
        torch.ones(big)

    count = bench("costs.counts").count
    count(together)
    assert count(together).peak == pytest.approx(8 * big, rel=1e-3)
    assert count(in_turn).peak == pytest.approx(4 * big, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_kernels_waits_and_the_allocators_peak_are_counted():
    x = torch.randn(2**20, device="cuda")
    call = lambda: ((x + 1) * 2).sum().item()  # noqa: E731
    call()
    counted = bench("costs.counts").count(call, "cuda")
    assert counted.kernels is not None
    assert 3 <= counted.kernels <= 6  # a sum may take more than one
    assert counted.syncs == 1
    assert counted.peak == pytest.approx(8 * 2**20, rel=0.05)


# variants ----------------------------------------------------------------------------------------------


def test_adapted_copies_share_the_weights_and_do_warp():
    variants = bench("costs.variants")
    base = variants.plain("test_vit", 64).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    image = torch.randn(2, 3, 64, 64)
    for variant in (variants.DEFAULT, *variants.VARIANTS):
        ours = variants.adapted(base, variant)
        assert len(ours.canonicalizers) == variant.sites
        mine = {id(p) for p in ours.backbone_parameters()}
        assert mine == {id(p) for p in base.parameters()}, variant.name
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert variants.displacement(variants.adapted(base).eval(), image) > 1e-4
    fresh = adapt(variants.plain("test_vit", 64).eval())
    assert variants.displacement(fresh, image) < 1e-6


# reading -----------------------------------------------------------------------------------------------


def record(**seconds: list[float]) -> dict:
    """A table of one batch of two images by hand."""
    counts = {"flops": 2_000_000_000, "kernels": 10, "syncs": 0, "traffic": 5, "peak": 2**20}
    more = counts | {"flops": 2_200_000_000, "kernels": 30, "peak": 3 * 2**19}
    return {
        "case": {
            "group": "authors", "model": "vit", "batch": 2, "mode": "inference", "precision": "fp32",
        },
        "settings": {"device": "cpu"},
        "sites": ["image"],
        "features": {"image": 1000, "blocks.0": 500},
        "moved": 0.01,
        "rows": [
            {"name": name, "against": "base", "seconds": taken, "error": "",
             "counts": counts if name == "base" else more}
            for name, taken in seconds.items()
        ],
    }  # fmt: skip


def test_ratios_are_taken_round_by_round():
    # a machine that is ten times slower in every other round; the ratio of medians would be 1.11
    table = record(base=[1.0, 10.0, 1.0, 10.0], adapted=[1.2, 11.0, 1.1, 12.0])
    c = bench("costs.reading").cost(table, "adapted")
    assert c.overhead == pytest.approx(15)
    assert 1.1 <= c.time.low < c.time.median < c.time.high <= 1.2 + 1e-9
    assert c.flops == pytest.approx(1.1)
    assert (c.flops_ratio, c.kernels, c.peak_ratio) == (pytest.approx(1.1), 30, 1.5)


def test_no_call_always_follows_the_same_one():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    in_turns = bench("costs.timing").in_turns
    taken = in_turns(calls, rounds=4, seconds=60)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 4, "b": 4, "c": 4}
    assert len(in_turns(calls, rounds=9, seconds=0)["a"]) == 3


def test_the_floor_is_what_arithmetic_or_traffic_alone_would_take():
    f = bench("costs.reading").floor(record(base=[1.0] * 3, adapted=[1.5] * 3), bandwidth=1e6)
    assert (f.flops, f.kernels, f.bytes) == (200_000_000, 20, 4500)
    assert f.by_flops == pytest.approx(100)  # a tenth of the base's FLOPs, of its second
    assert f.by_bytes == pytest.approx(4.5)
    assert (f.least, f.measured) == (pytest.approx(100), pytest.approx(500))


def test_a_factor_is_given_only_where_our_overhead_is_above_the_noise():
    page = bench("costs.page")
    theirs = [9.0, 9.0, 9.0]
    clear = record(base=[1.0] * 3, adapted=[1.1] * 3, authors=theirs)
    assert page.times_less(clear) == pytest.approx(80)
    noisy = record(base=[1.0] * 3, adapted=[0.9, 1.1, 1.0], authors=theirs)
    assert page.times_less(noisy) == 0
    failed = record(base=[1.0] * 3, adapted=[1.1] * 3, authors=[])
    failed["rows"][2]["error"] = "no bfloat16"
    assert page.times_less(failed) is None


def test_goals_that_are_missed_or_undecided_are_said_to_be():
    page = bench("costs.page")

    def resnet18(*ours: float) -> dict:
        table = record(base=[1.0] * len(ours), adapted=list(ours))
        table["case"] |= {"group": "models", "model": "resnet18", "batch": 8}
        return table

    theirs = record(base=[1.0] * 3, adapted=[1.5] * 3, authors=[9.0] * 3)
    tables = [theirs, resnet18(1.5, 1.5, 1.6), resnet18(1.1, 1.1, 1.3), resnet18(1.1, 1.1, 1.1)]
    goals = [line for line in page._goals(tables) if line.startswith(("| vit", "| resnet18"))]
    assert [line.rsplit("|", 2)[1].strip() for line in goals] == ["no", "no", "within the noise", "yes"]
    assert "| 16 |" in goals[0]
    assert "resnet18, inference, batch 8: at most 15% overhead | 1.500 (1.500 to 1.600) |" in goals[1]


# the scripts -------------------------------------------------------------------------------------------


def test_a_page_is_written_and_taken_up_again(tmp_path, capsys):
    main = bench("overhead").main
    out, work = tmp_path / "overhead.md", tmp_path / "work"
    arguments = [*TINY, "--groups", "models", "--work", str(work), "--out", str(out)]
    main(arguments)
    first = out.read_text()
    assert "| test_vit | 1 | fp32 |" in first
    assert "## The floor" in first
    assert (tmp_path / "overhead.svg").read_text().startswith("<?xml")
    assert "(kept)" not in capsys.readouterr().err
    main(arguments)
    assert out.read_text() == first
    assert capsys.readouterr().err.count("(kept)") == 2
    main([*arguments, "--seed", "1", "--modes", "inference"])
    assert "(kept)" not in capsys.readouterr().err
    kept = json.loads((work / "models-test_vit-b1-inference-fp32.json").read_text())
    assert kept["settings"]["seed"] == 1


def test_an_interrupted_run_keeps_its_tables(tmp_path, monkeypatch):
    overhead = bench("overhead")
    really, seen = overhead.measure, []

    def measure(case, *rest):
        seen.append(case)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return really(case, *rest)

    monkeypatch.setattr(overhead, "measure", measure)
    out = tmp_path / "page.md"
    with pytest.raises(KeyboardInterrupt):
        overhead.main([*TINY, "--groups", "models", "--work", str(tmp_path / "work"), "--out", str(out)])
    assert "| test_vit | 1 | fp32 |" in out.read_text()
    assert "### Training" not in out.read_text()


def test_options_that_cannot_be(capsys, monkeypatch):
    parse = bench("overhead").parse
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, message in (
        (["--groups", "authors"], "name a checkout of their code with --authors"),
        (["--device", "cuda"], "no GPU that torch can use"),
        (["--rounds", "2"], "quartiles need at least 3"),
    ):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert message in capsys.readouterr().err


def test_the_default_grid_on_a_cpu_is_the_whole_one_but_for_the_longest_tables():
    overhead = bench("overhead")

    def tables(*arguments: str) -> list[tuple[str, str, int, str]]:
        found = overhead.cases(overhead.parse(list(arguments)))
        return [(case.group, case.model, case.batch, case.mode) for case in found]

    light = tables()
    for model in overhead.MODELS:
        assert {("models", model, 1, "inference"), ("models", model, 8, "inference")} <= set(light)
    assert ("models", "vit_base_patch16_224", 8, "training") not in light
    named = tables("--models", "vit_base_patch16_224", "--groups", "models")
    assert len(named) == 4  # two batches in two modes
    assert ("models", "vit_base_patch16_224", 8, "training") in named
    detail = tables("--detail", "resnet18", "--groups", "choices", "--batches", "2")
    assert detail == [("choices", "resnet18", 2, mode) for mode in ("inference", "training")]


def test_steps_add_work_linearly_and_classes_add_none(tmp_path):
    growth = bench("growth")
    options = growth.argparse.Namespace(device="cpu", batch=1, rounds=3, seconds=0.01, seed=0)
    flops = {p.value: p.flops for p in growth.sweep("steps", options)}
    per_step = flops[2] - flops[1]
    assert per_step > 0
    assert flops == {k: flops[1] + (k - 1) * per_step for k in flops}
    points = growth.sweep("classes", options)
    verdict = growth._verdict("classes", points)
    assert verdict == "The canonicalizers add the same number of operations in every row."
    assert points[0].flops > 0
    out = tmp_path / "growth.md"
    growth.main(
        ["--sweeps", "channels", "--rounds", "3", "--seconds", "0.01", "--batch", "1", "--out", str(out)]
    )
    assert "| 768 |" in out.read_text()
    assert (tmp_path / "growth.svg").is_file()


def test_sources_are_held_against_the_step(capsys):
    bench("throughput").main(["--models", "small_resnet:32:2", "--rounds", "3", "--seconds", "0.01"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == [
        "step, plain",
        "step, adapted",
        "digits generated, cpu",
        "random separable warp, cpu",
        "random grid warp, cpu",
    ]
    assert all(float(row.split("|")[2]) > 0 for row in rows[1:])


# the authors' code -------------------------------------------------------------------------------------

STAND_IN = {
    "imagenet/config/adapter_config.yaml": """
dem_vit: {num_phi_layers: 2, inner_epochs: 5, adapter_coarse_resolution: [4, 4], adapter_channels: [3, 8],
  deform_resolution: None, heavy: !!bool True}
""",
    "imagenet/__init__.py": "",
    "models/__init__.py": "",
    "layers/__init__.py": "",
    "models/surrogate_model.py": """
from torch import nn
class DEMAdapter(nn.Linear):
    def __init__(self, params):
        assert params.heavy is True and params.deform_resolution is None
        super().__init__(3, 3)
    def _DEQ(self, x):
        assert x.dtype is self(x).dtype
        return self(x)
""",
    "layers/adapter.py": "raise RuntimeError('the trainer is not to be imported')",
    "layers/adapter_params.py": """
from layers.adapter import *
class PerlayerAdapterParams:
    def __init__(self, *, num_layers, adapter_coarse_resolution):
        self.layers = num_layers
    def to(self, device):
        pass
""",
    "imagenet/timm_model_handler.py": """
from types import MethodType
def convert_model(model, settings, parameters, dem):
    model.DEM, plain = dem, model.forward
    model.forward = MethodType(lambda self, x: plain(self.DEM._DEQ(x.movedim(1, -1)).movedim(-1, 1)), model)
    return model
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder laid out as the authors' code is, with converters of our own."""
    for name, text in STAND_IN.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


def test_a_checkout_is_run_and_leaves_no_trace(checkout, tmp_path, monkeypatch):
    mine = ModuleType("utils")
    monkeypatch.setitem(sys.modules, "utils", mine)
    path = list(sys.path)
    out = tmp_path / "page.md"
    arguments = ["--groups", "authors", "--authors", str(checkout), "--modes", "inference"]
    arguments += ["--precision", "fp32", "bf16"]
    bench("overhead").main([*TINY, *arguments, "--work", str(tmp_path / "work"), "--out", str(out)])
    page = out.read_text()
    assert page.count("| authors | ") == 2
    assert "did not run" not in page
    assert str(tmp_path / "checkout") not in page
    assert sys.modules["utils"] is mine
    assert "layers.adapter" not in sys.modules
    assert [p for p in sys.path if "checkout" in p] == [p for p in path if "checkout" in p] == []


def test_a_checkout_that_fails_is_a_row_that_says_why(checkout, tmp_path):
    (checkout / "models/surrogate_model.py").write_text("import lse_nothing_of_that_name")
    out = tmp_path / "page.md"
    arguments = ["--groups", "authors", "--authors", str(checkout), "--modes", "inference"]
    bench("overhead").main([*TINY, *arguments, "--work", str(tmp_path / "work"), "--out", str(out)])
    assert "did not run: the authors' code cannot be imported: " in out.read_text()
    assert "No module named 'lse_nothing_of_that_name'" in out.read_text()


def test_what_is_no_checkout_or_has_no_converter_is_refused(tmp_path):
    authors, variants = bench("costs.authors"), bench("costs.variants")
    with pytest.raises(LSEError, match=r"holds no .*adapter_config.yaml"):
        authors.authors_model(tmp_path, variants.plain("test_vit", 64))
    with pytest.raises(LSEError, match="no converter for timm's ResNet"):
        authors.authors_model(tmp_path, variants.plain("test_resnet", 64))
