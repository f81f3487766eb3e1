"""Pictures of what canonicalizers do, and the command that draws them."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import lse_dec
from lse_core import GridWarp, SeparableWarp, unscale
from lse_core.errors import LSEError, OutputError, ShapeError
from lse_dec.canonicalizers import Canonicalization
from lse_dec.commands.look import look
from lse_dec.monitor import displacement_map
from lse_dec.plot import plot_sites, view_sites


def adapted(mode: str = "invariant", **settings: Any) -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4).eval()
    made = lse_dec.adapt(model, ["layer2", "image"], mode=mode, **settings)
    if not settings:
        for canonicalizer in made.canonicalizers.values():
            nn.init.normal_(canonicalizer.update.head.weight, std=2.0)
    return made


def pictures(batch: int = 2) -> Tensor:
    coarse = torch.rand(batch, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, size=(64, 80), mode="bilinear")


class Fixed(nn.Module):
    """Always answers with one warp."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        g = SeparableWarp.random(1, 3, 3.0, generator=torch.Generator().manual_seed(9))
        return Canonicalization(g.broadcast(features.shape[0]))


def shown(figure: Any, row: int, column: int) -> np.ndarray:
    return np.asarray(figure.axes[6 * row + column].get_images()[0].get_array())


def test_views_are_what_the_sites_saw_and_answered() -> None:
    model, x = adapted(), pictures()
    with torch.no_grad(), lse_dec.observe(model) as found:
        model(x)
    views = view_sites(model, x)
    assert list(views) == ["image", "layer2"]  # as they ran, not as they were asked for
    assert torch.equal(views["image"].features, x)
    assert views["layer2"].features.shape == (2, 64, 16, 20)
    for site, view in views.items():
        assert torch.equal(view.warp.x.values, found[site].warp.x.values)
    assert not any(site.observers for site in model.sites.values())


def test_channels_last_maps_are_turned() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=24,
                              depths=(1, 1, 1, 1)).eval()  # fmt: skip
    views = view_sites(lse_dec.adapt(model, "layers.1"), torch.rand(1, 3, 64, 64))
    assert views["layers.1"].features.shape == (1, 24, 16, 16)


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
def test_the_pictures_follow_the_sites(mode: str) -> None:
    """A later site is shown what the earlier ones let through; Eq. 21's warp back hides the others'."""
    model = timm.create_model("resnet10t", num_classes=4).eval()
    model = lse_dec.adapt(model, ["image", "layer2", "layer3"], mode=mode, canonicalizer=Fixed)
    p = pictures(1)
    figure = plot_sites(model, p, pictures=p, names=["cat"])
    warp = Fixed(3)(p).warp
    once, twice = unscale(p, warp), unscale(unscale(p, warp), warp)
    thrice = unscale(twice, warp)

    def same(row: int, column: int, picture: Tensor) -> bool:
        expected = picture[0].permute(1, 2, 0).numpy() * 255.0
        return np.abs(shown(figure, row, column) - expected).max() < 0.51

    assert same(0, 0, p)
    assert same(0, 1, once)
    assert same(1, 0, once)
    assert same(1, 1, twice)
    assert same(2, 0, twice if mode == "invariant" else once)
    assert same(2, 1, thrice if mode == "invariant" else twice)
    assert figure.axes[6].get_title() == "cat at layer2"


def test_one_row_an_image_and_site_with_all_that_was_promised() -> None:
    model, p = adapted(), pictures()
    figure = plot_sites(model, p, pictures=p, names=["a", "b"])
    titles = [ax.get_title() for ax in figure.axes[: 6 * 4]]
    assert [t for t in titles if " at " in t] == ["a at image", "a at layer2", "b at image", "b at layer2"]
    assert titles[8] == "map, 64 channels, 16 x 20"
    before, after = shown(figure, 1, 2), shown(figure, 1, 3)
    assert before.shape == after.shape == (16, 20, 3)
    assert np.ptp(before.reshape(-1, 3), axis=0).min() > 200  # colours, spread over their range
    assert np.abs(before.astype(int) - after).max() > 20
    (trace,) = [line for line in figure.axes[11].get_lines() if len(line.get_xdata()) == 5]
    solution = view_sites(model, p)["layer2"].solution
    assert solution is not None
    np.testing.assert_allclose(trace.get_ydata(), solution.residuals[:, 0], rtol=1e-5)
    away = displacement_map(view_sites(model, p)["layer2"].warp, 64, 80)[0]
    np.testing.assert_allclose(shown(figure, 1, 4), away, rtol=1e-5)


def test_a_model_adapted_at_the_image_alone_has_no_columns_for_maps() -> None:
    p = pictures(1)
    model = lse_dec.adapt(timm.create_model("resnet10t", num_classes=4).eval(), "image", steps=2)
    figure = plot_sites(model, p, pictures=p, names=["a"])
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles[:2] == ["a at image", "canonical picture"]
    assert titles[2].startswith("displacement, mean")
    assert titles[3].startswith("residual, ")


def test_displacement_is_in_pixels() -> None:
    warp = SeparableWarp.random(2, 4, 3.0, generator=torch.Generator().manual_seed(0))
    found = displacement_map(warp, 33, 65)
    x = torch.linspace(0, 1, 65)
    across = (warp.x(x) - x) * 64
    assert found.shape == (2, 33, 65)
    torch.testing.assert_close(found[:, 0], across.abs())  # the upper edge moves along itself only
    assert displacement_map(SeparableWarp.identity(1), 8, 8).max() < 1e-5


class Coupled(nn.Module):
    """Always answers with a coupled grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        g = GridWarp.random(features.shape[0], generator=torch.Generator().manual_seed(9))
        return Canonicalization(g)  # type: ignore[arg-type]


def test_coupled_warps_are_drawn() -> None:
    figure = plot_sites(adapted(canonicalizer=Coupled), pictures())
    assert "coupled warp" in figure.axes[5].texts[0].get_text()
    assert shown(figure, 0, 4).max() > 0.5


def test_pictures_that_are_not_given_are_the_input_stretched() -> None:
    figure = plot_sites(adapted(canonicalizer="variation"), 10.0 * pictures() - 3.0)
    assert shown(figure, 0, 0).min() == 0
    assert shown(figure, 0, 0).max() == 255
    assert figure.axes[0].get_title() == "image 0 at image"


def test_an_image_that_is_not_finite_is_drawn_too() -> None:
    x = pictures()
    x[1, 0, 3, 3] = math.nan
    figure = plot_sites(adapted(), x, pictures=pictures())
    assert "not finite" in figure.axes[6 * 2 + 5].get_title()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 images need as many pictures"):
        plot_sites(adapted(), pictures(), pictures=pictures(1))
    with pytest.raises(ShapeError, match="names"):
        plot_sites(adapted(), pictures(), names=["one"])


# the command --------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    array = (pictures(1)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def invoke(*args: Any) -> Any:
    return CliRunner().invoke(look, [str(a) for a in args])


def test_a_saved_model(tmp_path: Path, photo: Path) -> None:
    lse_dec.save(adapted(), tmp_path / "model")
    out = tmp_path / "pictures" / "look.png"
    result = invoke(tmp_path / "model", photo, photo, "--out", out, "--size", 64, "--json")
    assert result.exit_code == 0, result.output
    with Image.open(out) as picture:
        assert picture.width > 1000
    found = json.loads(result.output)
    assert found["sites"] == ["image", "layer2"]
    assert found["image/largest_displacement"] > 0.01
    assert [p.name for p in out.parent.iterdir()] == ["look.png"]


def test_a_name_of_timm_gets_the_analytic_canonicalizer(tmp_path: Path, photo: Path) -> None:
    out = tmp_path / "look.svg"
    result = invoke("resnet10t", photo, "--out", out, "--size", 64, "--site", "image")
    assert result.exit_code == 0, result.output
    assert "image: moves pixels by" in result.output
    assert out.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (["resnet10t", "PHOTO", "--out", "look.txt"], OutputError, "must end in .png"),
        (["resnet10x", "PHOTO", "--out", "look.png"], LSEError, "Did you mean 'resnet10t'"),
        (["resnet10t", "nowhere.png", "--out", "look.png"], LSEError, "there is no picture nowhere.png"),
        (["resnet10t", "TEXT", "--out", "look.png"], LSEError, "notes cannot be read as a picture"),
        (["resnet10t", "PHOTO", "--out", "look.png", "--mean", "0", "--mean", "1"], LSEError, "--mean takes"),
        (["resnet10t", "PHOTO", "--out", "TEXT/look.png", "--size", "64"], OutputError, "cannot write"),
    ],
)
def test_errors_leave_nothing(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], error: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("no picture")
    result = invoke(*(a.replace("PHOTO", "photo.png").replace("TEXT", "notes") for a in args))
    assert isinstance(result.exception, error)
    assert words in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "photo.png"]


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lse_core.plot", "lse_dec.plot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = invoke("resnet10t", photo, "--out", tmp_path / "look.png")
    assert isinstance(result.exception, LSEError)
    assert "pip install" in str(result.exception)
