"""An adapted model as an exporter needs it: eval mode, a fixed number of steps, one tensor in, tensors out.

An adapted model is known here by its attributes alone: `canonicalizers` (modules by the name of
their site), `mode` and `settings`. A canonicalizer may carry `steps`, `solver` and `rule`, and
answers with an object that has `warp` and `solution`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lse_core import modes
from lse_core.errors import DTypeError, LSEError, ShapeError, check_finite, unknown_name
from lse_core.separable import SeparableWarp
from lse_export.errors import ExportError, first_line

__all__ = [
    "EXTRAS",
    "PRECISIONS",
    "Half",
    "Unrolled",
    "canonicalizers_of",
    "check_example",
    "check_precision",
    "evaluating",
    "extent",
    "halved",
    "recording",
    "residual_traces",
    "steps_of",
    "tolerance_of",
    "with_steps",
]


def canonicalizers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Canonicalizers by site; empty for a model that was never adapted."""
    found = getattr(model, "canonicalizers", None)
    return dict(found) if isinstance(found, Mapping) else {}


def steps_of(model: nn.Module) -> dict[str, int]:
    """Solver steps by site, for the canonicalizers that iterate."""
    return {
        site: int(canonicalizer.steps)  # type: ignore[arg-type]
        for site, canonicalizer in canonicalizers_of(model).items()
        if hasattr(canonicalizer, "steps")
    }


@contextmanager
def with_steps(model: nn.Module, steps: int | Mapping[str, int] | None) -> Iterator[None]:
    """Let the model's solvers take `steps` evaluations while the block runs; None changes nothing.

    Args:
        model: an adapted model.
        steps: at least 1, for all sites or by the name of the site.

    Raises:
        LSEError: out of range, or the model has no solver whose steps could be set.
    """
    if steps is None:
        yield
        return
    before = steps_of(model)
    wanted = dict(steps) if isinstance(steps, Mapping) else dict.fromkeys(before, steps)
    if not before or not wanted.keys() <= before.keys():
        raise LSEError(f"there are no solver steps to set; sites that iterate: {', '.join(before) or 'none'}")
    for count in wanted.values():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise LSEError(f"solver steps must be a whole number of at least 1; got {count!r}")
    canonicalizers = canonicalizers_of(model)
    try:
        for site, count in wanted.items():
            canonicalizers[site].steps = count  # type: ignore[assignment]
        yield
    finally:
        for site, count in before.items():
            canonicalizers[site].steps = count  # type: ignore[assignment]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients while the block runs; every module's own mode comes back after it.

    Gradients must be off for more than speed: the steps that only carry a gradient (phantom steps)
    would otherwise be exported too.
    """
    with modes.evaluating(*models), torch.no_grad():
        yield


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Collect the last answer of every canonicalizer by site while the block runs."""
    record: dict[str, Any] = {}

    def keep(site: str, module: nn.Module, inputs: Any, output: Any) -> None:
        record[site] = output

    with ExitStack() as hooks:
        for site, canonicalizer in canonicalizers_of(model).items():
            hooks.enter_context(canonicalizer.register_forward_hook(partial(keep, site)))
        yield record


def residual_traces(model: nn.Module, image: Tensor) -> dict[str, list[float]]:
    """Largest residual over the batch at every solver step, by site; sites without a solve are absent.

    Runs the model once, in whatever mode it is in.
    """
    with recording(model) as record:
        model(image)
    return {
        site: answer.solution.residuals.amax(dim=1).tolist()
        for site, answer in record.items()
        if getattr(answer, "solution", None) is not None
    }


EXTRAS = ("warp_x.", "warp_y.", "residual.")
"""How outputs that `Unrolled` adds are called; they live on [0, 1], or are residuals in the same units."""


class Unrolled(nn.Module):
    """A function from one tensor to a flat tuple of tensors, as graph formats have it.

    Args:
        model: any module of one tensor argument.
        record: filled by `recording(model)`; given, every site's warp and residual are outputs too.
    """

    def __init__(self, model: nn.Module, record: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self.record = record

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The model's tensors in order, then (x values, y values, residual) of every recorded site.

        Warps are (B, N + 1): where the map sends 0, 1/N, ..., 1. Residuals are (B,).
        """
        outputs = [leaf for leaf in pytree.tree_leaves(self.model(image)) if isinstance(leaf, Tensor)]
        return (*outputs, *(tensor for _, tensor in self._extras()))

    def extra_names(self) -> list[str]:
        """Names of the outputs that `record` adds; known after a forward pass."""
        return [name for name, _ in self._extras()]

    def _extras(self) -> Iterator[tuple[str, Tensor]]:
        for site, answer in (self.record or {}).items():
            if not isinstance(answer.warp, SeparableWarp):
                raise ExportError(
                    f"the warp of {site!r} is a {type(answer.warp).__name__}, which two lists of values "
                    "cannot hold; leave with_warps out, or adapt with warp='separable'"
                )
            yield f"warp_x.{site}", answer.warp.x.values
            yield f"warp_y.{site}", answer.warp.y.values
            if answer.solution is not None:
                yield f"residual.{site}", answer.solution.residual


def extent(name: str, expected: Tensor) -> float:
    """Range of the values (B, ...) of the output called `name`, by which differences are measured."""
    if name.startswith(EXTRAS):
        return 1.0
    finite = expected[expected.isfinite()]
    if not finite.numel():
        return 1.0
    # an output that does not vary is measured by its size instead
    return max(float(finite.max() - finite.min()), 1e-3 * float(finite.abs().max()), 1e-12)


def check_example(model: nn.Module, example: Tensor) -> Tensor:
    """Return the example on the model's device.

    Raises:
        ShapeError, DTypeError, NotFiniteError: no batch of finite floating images (B, C, H, W).
        ExportError: the model itself fails on it.
    """
    if not isinstance(example, Tensor):
        raise DTypeError(f"the example must be a tensor of images; got {type(example).__name__}")
    if example.ndim != 4 or 0 in example.shape:
        raise ShapeError(
            f"the example must be images (batch, channels, height, width); got shape {tuple(example.shape)}"
        )
    if not example.is_floating_point():
        raise DTypeError(f"the example must be images of a floating dtype, normalised; got {example.dtype}")
    check_finite(example, "the example")
    parameter = next(model.parameters(), None)
    if parameter is not None:
        example = example.to(parameter.device)
    try:
        with evaluating(model):
            model(example)
    except LSEError:
        raise
    except Exception as error:
        where = f"the model fails on an example of shape {tuple(example.shape)}"
        raise ExportError(f"{where}: {first_line(error)}") from error
    return example


TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "int8": 0.25}
PRECISIONS = tuple(TOLERANCES)
"""Precisions an ONNX file can have; int8 by `lse_export.quantize`."""

ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16"}


def check_precision(name: str) -> str:
    """The precision called `name` ("fp16" being "float16"); UnknownNameError for any other."""
    name = ALIASES.get(name, name)
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return name


def tolerance_of(precision: str) -> float:
    """Largest difference from the float32 model, of the output's range, that a precision is allowed."""
    return TOLERANCES.get(precision, TOLERANCES["float32"])


def halved(model: nn.Module) -> nn.Module:
    """A copy of `model` in float16.

    Canonicalizers keep warp coordinates, their state and the solver in float32 whatever the dtype of the
    features, and cast what enters and leaves them; these casts are nodes of the graph.
    """
    with evaluating(model):
        return copy.deepcopy(model).half()


class Half(nn.Module):
    """A float16 model that takes images of any floating type, and answers in float32 unless told not to.

    Args:
        model: in float16.
        outputs: cast floating outputs back to float32.
    """

    def __init__(self, model: nn.Module, outputs: bool = True) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, image: Tensor) -> Any:
        """The model's outputs for images of any floating dtype."""
        out = self.model(image.half())
        if not self.outputs:
            return out
        return pytree.tree_map_only(Tensor, lambda x: x.float() if x.dtype == torch.float16 else x, out)
