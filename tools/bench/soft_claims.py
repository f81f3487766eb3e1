"""Measure how tight the bounds are, which constraints hold on pixels, and what softening costs a model.

python tools/bench/soft_claims.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

import lse_export
import lse_soft
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_soft.bounds import scaling_bound
from lse_soft.generators import growth, lorentz_generators, rotation_generator, so3_generators
from lse_soft.gram import gram_matrix, gram_polynomials, scaling_fields
from lse_soft.groups import SO3, LocalScale, Lorentz, Rotation
from lse_soft.sampled import affine_difference, affine_matrix, axis_matrices, random_maps, turn
from lse_soft.spectra import DenseSpectrum, NormalForm, NormalSpectrum, Spectrum
from lse_soft.spectra.dense import equivariance_gram, functional_gram
from lse_soft.thresholds import factors


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all sections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.parse_args(arguments)
    torch.set_num_threads(1)
    exactness()
    tightness()
    pixels()
    mixing()
    models()


def exactness() -> None:
    """Largest entries by which the routes to one spectrum or projection differ."""
    print("\n| what | largest difference |\n|---|---|")
    a = rotation_generator((4, 4))
    w = draw(16, 16)
    one = torch.eye(16, dtype=torch.float64)
    _, sigma, v = torch.linalg.svd(torch.kron(one, a.T.contiguous()) - torch.kron(a, one))
    order = sigma.sort().values
    near = order[100:156]
    k = int(near.diff().argmax())
    b = 0.5 * float(near[k] + near[k + 1])
    kept = v[sigma < b]
    reference = (kept.T @ (kept @ w.reshape(-1))).view(16, 16)
    dense = hard(DenseSpectrum(equivariance_gram([a], [a])), b)(w.reshape(1, -1)).view(16, 16)
    print(f"| projection, eigh of C against SVD of L, 4 x 4 | {float((dense - reference).abs().max()):.0e} |")
    for name, form in (("eigh of iA", NormalForm.skew(a)), ("Schur", NormalForm.schur(a))):
        found = hard(NormalSpectrum(form, form), b)(w)
        print(
            f"| projection, {name} against SVD of L, 4 x 4 | {float((found - reference).abs().max()):.0e} |"
        )
    fields, side = scaling_fields(5), torch.eye(5, dtype=torch.float64)
    whole = [torch.kron(side, f) for f in fields] + [torch.kron(f, side) for f in fields]
    full = torch.linalg.eigvalsh(equivariance_gram(whole, whole))
    parts = LocalScale(method="lie").mixing((5, 5), (5, 5))
    assert parts is not None
    gap = (parts.values().square() - full).abs().max() / full.max()
    print(f"| spectrum, Kronecker sum against 625 x 625, relative to its largest value | {float(gap):.0e} |")
    degrees = torch.arange(64, dtype=torch.float64)
    gap = (torch.linalg.eigvalsh(gram_matrix(64)) - degrees * (degrees + 1)).abs().max() / 64**2
    print(f"| Gram eigenvalues against n (n + 1), 64 points, relative to 64^2 | {float(gap):.0e} |")


def tightness() -> None:
    """Largest measured error over the bound."""
    print("\n| what | largest error / bound |\n|---|---|")
    a = rotation_generator((8, 8))
    form, functional = NormalForm.skew(a), DenseSpectrum(functional_gram([a]))
    spectrum = NormalSpectrum(form, form)
    g, t = torch.matrix_exp(0.1 * a), 0.1
    one = torch.eye(64, dtype=torch.float64)
    b = float(functional.values()[20])
    basis = functional.vectors[:, functional.values() < b]
    print(f"| rotation, invariant, worst weight and signal | {norm(basis.T @ (g - one)) / (b * t):.3f} |")
    w = hard(spectrum, 1.0)(draw(64, 64))
    ratio = norm(w @ g - g @ w) / (t * float(w.norm()))
    print(f"| rotation, equivariant, random W, worst signal | {ratio:.3f} |")
    i, j = 0, 4
    mode = torch.outer(form.basis[:, i], form.basis[:, j])
    mode = mode + torch.outer(form.basis[:, form.partner[i]], form.basis[:, form.partner[j]])
    allowed = spectrum.kappa(mode) * t * float(mode.norm())
    print(f"| rotation, equivariant, one mode | {float((mode @ g - g @ mode).norm()) / allowed:.3f} |")
    for name, group, generators in (
        ("SO(3), three generators stacked", SO3(), so3_generators()),
        ("Lorentz, with the growth factor", Lorentz(), lorentz_generators()),
    ):
        s = group.vectors((2, 1), (2, 1))
        assert s is not None
        ratios, plain = [], []
        for seed in range(300):
            w = hard(s, 2.0)(draw(*s.shape, seed=seed))  # type: ignore[attr-defined]
            c = 2 * draw(len(generators), seed=seed + 1000)
            single = sum((k * j for k, j in zip(c, generators, strict=True)), 0 * generators[0])
            x = torch.block_diag(single, single, torch.zeros(1, 1, dtype=torch.float64))
            e = torch.matrix_exp(x)
            ratio = norm(w @ e - e @ w) / (s.kappa(w) * float(c.norm()) * float(w.norm()))
            ratios.append(ratio / growth(x, x))
            plain.append(ratio)
        print(f"| {name} | {max(ratios):.3f} |")
        if max(plain) > max(ratios) * 1.001:
            print(f"| the same without the factor | {max(plain):.1f} |")
    vectors, sigma = gram_polynomials(48)
    for b in (2.5, 8.0):
        kept = ((sigma.square().unsqueeze(1) + sigma.square()).sqrt() < b).nonzero().tolist()
        arrays = torch.stack([torch.outer(vectors[:, i], vectors[:, j]) for i, j in kept]).unsqueeze(1)
        warps = SeparableWarp.random(100, 4, 2.0, generator=generator(), dtype=torch.float64)
        allowed_by = scaling_bound(b, warps)
        found = [norm((scale(arrays, warps[k]) - arrays).flatten(1)) for k in range(100)]
        worst = max(e / float(x) for e, x in zip(found, allowed_by, strict=True))
        slopes = warps.x.slopes.amax(1) * warps.y.slopes.amax(1)
        empty = float((allowed_by > 1 + slopes.sqrt()).double().mean())
        print(f"| position embedding under `lse_core.scale`, b = {b}, worst array | {worst:.3f} |")
        print(f"| ... share of warps of which that bound says nothing | {empty:.0%} |")


def pixels() -> None:
    """Rotation-invariant filters on patches of photographs, by how the constraints were made."""
    print("\n| constraints | 14 x 14, 5 directions | 14 x 14, 8 | 16 x 16, 5 | 16 x 16, 8 |")
    print("|---" * 5 + "|")
    groups = {
        "sampled": Rotation(),
        "circular harmonics": Rotation(method="harmonics"),
        "generator, spectral": Rotation(method="lie"),
        "generator, central": Rotation(method="lie", derivative="central"),
    }
    for name, group in groups.items():
        cells = []
        for n, pad in ((14, 4), (16, 5)):
            x = patches(n + 2 * pad)
            spectrum = group.filter((n, n), (1, 1))
            assert isinstance(spectrum, DenseSpectrum)
            still = affine_matrix((n, n), pad, torch.eye(2), torch.zeros(2))
            for count in (5, 8):
                w = spectrum.vectors[:, :count].T
                moved = [w @ affine_difference((n, n), pad, turn(t)) @ x for t in (0.3, 1.1, 2.0, -2.7)]
                cells.append(f"{float(torch.stack(moved).norm()) / 2 / float((w @ still @ x).norm()):.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    kernel = DenseSpectrum(functional_gram([rotation_generator((14, 14), "central")])).values()
    print(f"\ndimension of the kernel of the central generator at n = 14: {int((kernel == 0).sum())}")


def mixing() -> None:
    """Token mixing along an axis of 14, the 20 lowest of 196 directions, on warps never seen."""
    print("\n| constraints | mean error, worst signal | largest | largest / bound |\n|---|---|---|---|")
    maps = random_maps(200, 2.0, 4, "log_uniform", 1)
    warps = axis_matrices(maps, 14)
    lengths = 2 * maps.distance(type(maps).identity(1, dtype=torch.float64), "fisher_rao")
    for name, group in (("sampled", LocalScale(samples=128)), ("generators", LocalScale(method="lie"))):
        spectrum = DenseSpectrum(group._axis_gram(14))
        vectors, b = spectrum.vectors[:, :20], float(spectrum.values()[20])
        errors, ratios = [], []
        for seed in range(20):
            w = (vectors @ draw(20, seed=seed)).reshape(14, 14)
            e = torch.linalg.matrix_norm(w @ warps - warps @ w, 2) / w.norm()
            errors.append(e)
            growth_of = maps.slopes.amax(1).sqrt() if name == "generators" else torch.ones(200)
            ratios.append(e / (b * lengths * growth_of))
        e, r = torch.stack(errors), torch.stack(ratios)
        print(f"| {name} | {float(e.mean()):.3f} | {float(e.max()):.3f} | {float(r.max()):.2f} |")


def models() -> None:
    """Parameters, seconds a training step, ONNX nodes."""
    print(
        "\n| model | parameters added | step, s | step softened, s | softened : plain | nodes "
        "| nodes, folded | nodes, not folded | verify |"
    )
    print("|---" * 9 + "|")
    for name, size in (("vit_tiny_patch16_224", 224), ("resnet18", 224), ("tf_efficientnet_lite0", 224)):
        torch.manual_seed(0)
        plain = timm.create_model(name)
        soft = lse_soft.soften(copy.deepcopy(plain), "rotation", keep=0.5)
        added = sum(p.numel() for p in soft.parameters()) - sum(p.numel() for p in plain.parameters())
        x = torch.randn(8, 3, size, size)
        seconds: dict[str, list[float]] = {"plain": [], "soft": []}
        for _ in range(5):  # in turns, so that both see the same machine
            for key, model in (("plain", plain), ("soft", soft)):
                seconds[key].append(step(model, x))
        before, after = (statistics.median(seconds[k][1:]) for k in ("plain", "soft"))
        with tempfile.TemporaryDirectory() as folder:
            nodes = [exported(plain, x[:2], Path(folder) / "plain.onnx")]
            nodes.append(exported(soft, x[:2], Path(folder) / "unfolded.onnx"))
            with lse_soft.folded(soft):
                nodes.append(exported(soft, x[:2], Path(folder) / "folded.onnx"))
                report = lse_export.verify(Path(folder) / "folded.onnx", soft, x[:2])
        costs = f"{added} | {before:.3f} | {after:.3f} | {after / before:.2f}"
        counts = f"{nodes[0]} | {nodes[2]} | {nodes[1]} | {report.max_abs_diff:.1e}"
        print(f"| {name} | {costs} | {counts} |", flush=True)


def exported(model: torch.nn.Module, x: Tensor, path: Path) -> int:
    """Nodes of the graph of `model`, which has no canonicalizers."""
    return lse_export.export_onnx(model.eval(), x, path, allow_plain=True).nodes


def step(model: torch.nn.Module, x: Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    model.train()
    start = time.perf_counter()
    model(x).square().mean().backward()
    model.zero_grad()
    return time.perf_counter() - start


def patches(side: int) -> Tensor:
    """(side^2, 60) grey patches of two photographs at half size, mean removed, as columns of unit norm."""
    made, g = [], generator()
    images = [torch.tensor(i).double().mean(-1) / 255 for i in load_sample_images().images]
    halves = [F.avg_pool2d(i[None, None], 2)[0, 0] for i in images]
    for k in range(60):
        image = halves[k % 2]
        top, left = (int(torch.randint(n - side, (1,), generator=g)) for n in image.shape)
        made.append(image[top : top + side, left : left + side].reshape(-1))
    x = torch.stack(made, 1)
    x = x - x.mean(0)
    return x / x.norm(dim=0)


def hard(spectrum: Spectrum, b: float) -> torch.nn.Module:
    """The projector onto sigma < b."""
    return spectrum.filter(lambda s: factors(s, b, "hard"))


def norm(matrix: Tensor) -> float:
    """The largest singular value."""
    return float(torch.linalg.matrix_norm(matrix, 2))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    """A generator with a seed."""
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
