"""Figures, the animation and `lse warp`; and that none of it is loaded before it is asked for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lse_core import GridWarp, LSEError, MonotoneMap, SeparableWarp, TriangularWarp, plot, scale
from lse_core.commands.warp import warp as command
from lse_core.errors import OutputError, ShapeError


@pytest.fixture
def picture() -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 64), indexing="ij")
    return torch.stack([x, y, (6 * x).sin().abs()])


WARP = SeparableWarp.random(2, 4, 4.0, generator=torch.Generator().manual_seed(0))
TRIANGULAR = TriangularWarp.random(2, 4, 4.0, order="yx", generator=torch.Generator().manual_seed(0))


def test_a_map_is_drawn_with_its_knots_and_slopes() -> None:
    m = MonotoneMap.from_logits(torch.randn(3, 4))
    above, below = plot.plot_map(m, title="maps").axes
    curves = above.get_lines()[1:]
    assert len(curves) == 3
    assert np.allclose(curves[1].get_ydata(), m.values[1].numpy())
    assert len(below.patches) == 3


@pytest.mark.parametrize(
    "warp", [WARP, TRIANGULAR, GridWarp.random(1, 4, 0.3)], ids=["separable", "triangular", "grid"]
)
def test_the_grid_lies_where_the_picture_went(warp: plot.Warp, picture: torch.Tensor) -> None:
    figure = plot.plot_warp(picture, warp, title="warp")
    left, right = figure.axes
    lines = [np.asarray(path.vertices) for path in right.collections[0].get_paths()]
    assert len(lines) == 34
    # the first pair of lines are the borders, which stay
    assert np.allclose(lines[0][:, 1], 0)
    # a line of constant input height h is where `scale` shows the input's row h
    u = torch.linspace(0, 1, 200)
    line = warp(torch.stack([u, torch.full((200,), 0.5)], -1))[0].numpy() * [63, 47]
    assert np.allclose(lines[16], line, atol=1e-3)
    assert len(left.collections) == 1


def test_the_round_trip_shows_the_error(picture: torch.Tensor) -> None:
    figure = plot.plot_round_trip(picture, WARP)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "picture"
    assert titles[3].startswith("error, rms 0.0")
    error = figure.axes[3].get_images()[0].get_array()
    assert error.shape == (48, 64)
    assert float(error.max()) > 0


@pytest.mark.parametrize("warp", [WARP, TRIANGULAR], ids=["separable", "triangular"])
def test_the_animation_goes_to_the_warp_and_back(
    warp: SeparableWarp | TriangularWarp, tmp_path: Path, picture: torch.Tensor
) -> None:
    path = tmp_path / "path.gif"
    plot.animate(picture, warp, path, frames=5)
    with Image.open(path) as gif:
        assert gif.n_frames == 8
        assert gif.size == (64, 48)
        gif.seek(4)  # the far end: the scaled picture under half-white lines
        there = torch.from_numpy(np.array(gif.convert("RGB"))).permute(2, 0, 1) / 255
        off = (there - scale(picture[None], warp[0])[0]).abs().amax(0)
        assert float(off.quantile(0.3)) < 0.1  # half of the pixels are lines, and a GIF has 256 colours
    with pytest.raises(ShapeError, match="at least 2 frames"):
        plot.animate(picture, WARP, path, frames=1)
    with pytest.raises(OutputError, match="cannot write"):
        plot.animate(picture, WARP, tmp_path / "no" / "path.gif", frames=2)


def test_pictures_become_bytes(picture: torch.Tensor) -> None:
    assert plot.to_array(picture).shape == (48, 64, 3)
    assert plot.to_array(2 * picture[:1]).max() == 255
    with pytest.raises(ShapeError, match="expected one picture"):
        plot.plot_warp(torch.zeros(2, 3, 4, 4), WARP)


# the command ------------------------------------------------------------------------------------


def test_lse_warp_writes_what_it_says(tmp_path: Path, picture: torch.Tensor) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(plot.to_array(picture)).save(source)
    out = tmp_path / "runs" / "warp"
    args = [str(source), "--out", str(out), "--seed", "3", "--frames", "3", "--json"]
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert {Path(p).name for p in numbers["files"]} == {"warp.png", "round_trip.png", "maps.png", "path.gif"}
    for p in numbers["files"]:
        with Image.open(p) as image:
            image.load()
            assert min(image.size) >= 48
    assert numbers["size"] == [48, 64]
    w = SeparableWarp.random(1, 4, 4.0, generator=torch.Generator().manual_seed(3))
    x = torch.from_numpy(plot.to_array(picture)).permute(2, 0, 1)[None].float() / 255
    back = scale(scale(x, w), ~w)
    assert numbers["round_trip_rms"] == pytest.approx(float((back - x).square().mean().sqrt()), rel=1e-3)


def test_lse_warp_draws_triangular_warps(tmp_path: Path, picture: torch.Tensor) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(plot.to_array(picture)).save(source)
    args = [str(source), "--out", str(tmp_path), "--frames", "2"]
    chosen = ["--warp", "triangular", "--order", "yx", "--seed", "3", "--json"]
    result = CliRunner().invoke(command, [*args, *chosen], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    w = TriangularWarp.random(1, 4, 4.0, order="yx", generator=torch.Generator().manual_seed(3))
    assert numbers["warp"] == "triangular"
    assert numbers["slopes"] == pytest.approx([float(w.slope_bounds.min()), float(w.slope_bounds.max())])
    away = (w.lattice(48, 64) - TriangularWarp.identity().lattice(48, 64))[0] * torch.tensor([63, 47])
    assert numbers["largest_displacement_px"] == pytest.approx(float(away.norm(dim=-1).max()), rel=1e-4)
    refused = CliRunner().invoke(command, [*args, "--order", "yx"])
    assert refused.exit_code == 2
    assert "add --warp triangular" in refused.output


@pytest.mark.parametrize("case", ["missing", "no picture", "distribution", "unwritable"])
def test_lse_warp_says_what_is_wrong(case: str, tmp_path: Path, picture: torch.Tensor) -> None:
    source, text = tmp_path / "in.png", tmp_path / "text.png"
    Image.fromarray(plot.to_array(picture)).save(source)
    text.write_text("no picture")
    args, message = {
        "missing": ([str(tmp_path / "no.png"), "--out", str(tmp_path)], "there is no picture"),
        "no picture": ([str(text), "--out", str(tmp_path)], "cannot be read as a picture"),
        "distribution": (
            [str(source), "--out", str(tmp_path), "--distribution", "x"],
            "unknown distribution 'x'",
        ),
        "unwritable": ([str(source), "--out", str(text / "x")], "cannot write to"),
    }[case]
    result = CliRunner().invoke(command, args)
    assert isinstance(result.exception, LSEError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


# what importing loads ---------------------------------------------------------------------------

HEAVY = {
    "timm",
    "onnx",
    "mmengine",
    "mmcv",
    "mmseg",
    "matplotlib",
    "torchmetrics",
    "PIL",
    "torchvision",
    "sklearn",
}


@pytest.mark.parametrize(
    "statement",
    [
        "import lse_core",
        "from lse_core import SeparableWarp, GridWarp, scale, unscale, equivariance_error",
        "import lse_core.metrics, lse_core.objects, lse_core.random, lse_core.geometry",
        "from lse_core.plugins import registry; registry().names('command')",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = (
        "import os; os.environ['LSE_PLUGINS'] = 'lse-core'\n"
        "import torch, sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "lse_core" in out.split()
    assert not HEAVY & set(out.split())


def test_names_need_no_torch_until_used() -> None:
    code = "import lse_core, sys; assert 'torch' not in sys.modules; print(lse_core.__version__)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
