"""Where a model breaks under local scaling: the Lie derivative of its layers, and sites to try first."""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lse_core.backbones import find_backbone
from lse_core.errors import LSEError, NotFiniteError, ShapeError
from lse_core.measuring.lie import ScalingField, trace
from lse_core.measuring.measurement import Layer, Layers
from lse_core.measuring.places import Place, visiting

__all__ = ["advise", "measure_layers", "stage_shares"]

IMAGE = "image"
"""Name of the site at the model's input, as `lse adapt --list` prints it."""

MOST_SITES = 3


@dataclass
class _Sums:
    """Sums of squares over elements, pictures and fields, by number of the place; `pushed` of all places."""

    own: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    through: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    size: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    pushed: float = 0.0


def measure_layers(
    model: nn.Module,
    images: Tensor,
    *,
    target: Sequence[str] = (),
    fields: int = 4,
    segments: int = 4,
    ratio: float = 2.0,
    batch: int = 4,
    seed: int = 0,
    scores: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Layers:
    """Measure the Lie derivative of every layer under random fields of local scaling (Gruver et al. 2022).

    `lse_core.measuring.lie` says what the Lie derivative L f and a layer's own share of it are. With E the
    mean over pictures and random fields, F what a layer gives, and |.| the L2 norm over all elements,

        own            = sqrt(E |L f|² / E |F|²),  the layer alone, on an input that moves as it should,
        lie_derivative = the same of everything from the image to the layer,
        share          = sqrt(E <v, Dp L f>²), divided by the sum over all layers,

    where Dp takes a change of F on to the probabilities of the classes (softmax over axis 1), and v is a
    vector of independent standard normal numbers. So E <v, Dp L f>² = E |Dp L f|², the part of the layer in
    InvE (Eq. 24) to leading order, as if it stood alone; parts of layers can cancel each other. Several
    places of one layer (`Place`) are one in `share`, and add up as squares in the others.

    The stage of a layer is the last site before it: "image", or the last stage of the model, as `lse adapt
    --list` prints them, that has begun when the layer runs. Where no installed plugin knows the stages, it is
    the module at the top of the model.

    Args:
        model: whose output is a tensor with classes on axis 1, unless `scores` says otherwise.
        images: (n, C, H, W), floating, normalised as the model wants them, on its device.
        target: how the command line names the model ("resnet18", "--pretrained"), for the advice.
        fields: random fields for each picture, independent in x and y.
        segments: of a field, in each axis, see `lse_core.SeparableWarp`.
        ratio: the strength of a field: at t = 1 its slopes lie within [1/ratio, ratio].
        batch: pictures at once.
        seed: of the fields and of v.
        scores: gives the scores (B, classes, ...) for images, by running `model`; None calls it.
        progress: called with (done, total) after each batch.

    Raises:
        ShapeError: no pictures.
        NotFiniteError: the model answers with NaN or infinity.
        LSEError: an operation of the model has no derivative in forward mode.
    """
    if images.ndim != 4 or not images.shape[0]:
        raise ShapeError(
            f"layers are measured on images (n, channels, height, width); got {tuple(images.shape)}"
        )
    run, sums, stages = scores or model, dict[str, _Sums](), _Stages(model)
    generator = torch.Generator().manual_seed(seed)
    parts = [part for part in images.split(batch) for _ in range(fields)]
    for done, part in enumerate(parts):
        # one image alone could not be told from one window of it
        x = part.repeat(2, 1, 1, 1) if part.shape[0] == 1 else part
        drawn = ScalingField.random(x.shape[0], segments, ratio, generator=generator)
        direction = ScalingField(drawn.log_slopes.to(x))
        try:
            _add(run, model, x, direction, generator, sums, stages)
        except LSEError:
            raise
        except (NotImplementedError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LSEError(
                f"the layers of {type(model).__name__} cannot be measured, because one of its operations has "
                f"no derivative in forward mode: {reason}"
            ) from error
        if progress is not None:
            progress(done + 1, len(parts))
    return advise(model, _layers(sums, stages.of), target)


class _Stages:
    """Which stage each layer belongs to, found while the model runs."""

    def __init__(self, model: nn.Module) -> None:
        self.sites = _site_names(model)
        self.of: dict[str, str] = {}
        self.now = IMAGE

    def begin(self, path: str) -> None:
        """A module begins."""
        if not path:
            self.now = IMAGE
        elif self.sites is None:
            self.now = path.split(".")[0]
        elif path in self.sites:
            self.now = path


def _add(
    run: Callable[[Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    direction: ScalingField,
    generator: torch.Generator,
    sums: dict[str, _Sums],
    stages: _Stages,
) -> None:
    """Add one batch under one field for each picture."""
    places, tensors = list[Place](), list[Tensor]()

    def keep(place: Place, tensor: Tensor) -> Tensor:
        stages.of.setdefault(place.layer, stages.now)
        places.append(place)
        tensors.append(tensor)
        return tensor.clone()  # the model may go on to write to it

    with torch.enable_grad(), visiting(model, x.shape[0], keep, stages.begin):
        answer = run(x.detach().requires_grad_())
        if not bool(answer.isfinite().all()):
            raise NotFiniteError(
                f"{type(model).__name__} answers with NaN or infinity, so no layer is measured"
            )
        probe = torch.randn(answer.shape, generator=generator).to(answer)
        gradients = torch.autograd.grad((probe * answer.softmax(dim=1)).sum(), tensors, allow_unused=True)
    pushed, visits = dict[str, Tensor](), iter(enumerate(gradients))

    def note_own(place: Place, value: Tensor, error: Tensor) -> None:
        number, gradient = next(visits)
        layer = sums.setdefault(place.layer, _Sums())
        layer.own[number] += _square(error)
        layer.size[number] += _square(value)
        if gradient is not None:
            part = (gradient * error).flatten(1).sum(dim=1)
            pushed[place.layer] = pushed.get(place.layer, 0.0) + part

    trace(run, model, x, direction, note_own)
    for name, part in pushed.items():
        sums[name].pushed += _square(part)
    numbers = iter(range(len(places)))

    def note_through(place: Place, value: Tensor, error: Tensor) -> None:
        sums[place.layer].through[next(numbers)] += _square(error)

    trace(run, model, x, direction, note_through, own=False)


def _square(x: Tensor) -> float:
    return float(x.detach().double().square().sum())


def _layers(sums: Mapping[str, _Sums], stages: Mapping[str, str]) -> tuple[Layer, ...]:
    total = sum(math.sqrt(s.pushed) for s in sums.values()) or 1.0
    return tuple(
        Layer(
            name=name,
            stage=stages[name],
            lie_derivative=_ratio(s.through, s.size),
            own=_ratio(s.own, s.size),
            share=math.sqrt(s.pushed) / total,
        )
        for name, s in sums.items()
    )


def _ratio(squares: Mapping[int, float], sizes: Mapping[int, float]) -> float:
    return math.sqrt(sum(square / sizes[i] for i, square in squares.items() if sizes[i] > 0))


def _site_names(model: nn.Module) -> list[str] | None:
    """Latent stages of the model as `lse adapt --list` prints them; None where no plugin knows them."""
    backbone = find_backbone(model)
    return None if backbone is None else [stage.name for stage in backbone.stages(model)]


def stage_shares(layers: Layers) -> dict[str, float]:
    """The shares of each stage's layers, added up, by stage in order of execution."""
    found: dict[str, float] = {}
    for layer in layers.layers:
        found[layer.stage] = found.get(layer.stage, 0.0) + layer.share
    return found


def advise(model: nn.Module, layers: Sequence[Layer], target: Sequence[str] = ()) -> Layers:
    """The layers with the sites to try first: the fewest stages that have half of the shares, at most three.

    This is advice and no proof: a canonicalizer before a stage can undo what that stage breaks, as far as its
    warp is found and its features are still good. It names no sites where no installed plugin knows the
    stages (lse-dec does), and for a model that has canonicalizers already.

    Args:
        model: that was measured.
        layers: in order of execution.
        target: how the command line names the model; empty leaves the command out.
    """
    measured = Layers(layers=tuple(layers))
    if hasattr(model, "canonicalizers") or _site_names(model) is None:
        return measured
    shares = stage_shares(measured)
    sites: list[str] = []
    for site in sorted(shares, key=lambda name: -shares[name])[:MOST_SITES]:
        if sum(shares[name] for name in sites) < 0.5:
            sites.append(site)
    options = [word for site in sites for word in ("--site", site)]
    command = shlex.join(["lse", "adapt", *target, *options, "--out", "runs/adapted"]) if target else None
    return Layers(layers=measured.layers, sites=tuple(sites), command=command)
