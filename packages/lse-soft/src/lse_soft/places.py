"""Places where a model can be softened: its tensors, and their layout over space.

A kind says what a tensor is:

- "patch", "convolution": weights (out, in, kh, kw) of a `Conv2d`, each filter a functional on its window. A
  patch embedding is one whose windows do not overlap.
- "image": a `Linear` weight (out, C h w) on flattened images or tokens, functionals of the whole grid.
- "position": a parameter (1, prefix + h w, C), (1, h, w, C) or (1, C, h, w); prefix tokens are left alone.
- "mixing": a `Linear` weight (h w, h w) between tokens.
- "vectors": a `Linear` weight between features made of vectors, then scalars; its bias goes with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import ShapeError, unknown_name
from lse_soft.errors import SoftError

__all__ = ["KINDS", "Place", "backbone", "find_places", "parse_place", "tensor_of"]

KINDS = ("patch", "convolution", "image", "position", "mixing", "vectors")
FUNCTIONALS = ("patch", "convolution", "image")
"""Kinds whose weights are functionals, so that their answer to a constant signal means something."""

POSITIONS = ("pos_embed", "pos_embedding", "position_embedding", "position_embeddings", "absolute_pos_embed")
MOST_PREFIX = 8  # class and register tokens that may precede a square grid

Grid = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """A tensor of a model and what it is.

    Attributes:
        name: the module's name, or the parameter's where it is not called "weight".
        module: name of the module that holds it, "" for the model itself.
        tensor: the parameter's name in that module.
        kind: one of `KINDS`.
        grid: (height, width) of the window or of the grid; (0, 0) for vectors.
        stride: of a convolution.
        prefix: tokens before the grid, of a position embedding.
        outputs: (vectors, scalars), for kind "vectors".
        inputs: the same; (0, 1) for a bias.
    """

    name: str
    module: str
    tensor: str
    kind: str
    grid: Grid = (0, 0)
    stride: Grid = (1, 1)
    prefix: int = 0
    outputs: Grid = (0, 0)
    inputs: Grid = (0, 0)

    def elements(self, weight: Tensor) -> Tensor:
        """The tensor as its spectrum wants it: (rows, h w), or one matrix for "mixing" and "vectors"."""
        if self.kind == "mixing":
            return weight
        if self.kind == "vectors":
            return weight.unsqueeze(1) if weight.ndim == 1 else weight
        if self.kind == "position":
            return self._grid_part(weight)
        return weight.reshape(-1, self.grid[0] * self.grid[1])

    def restore(self, elements: Tensor, weight: Tensor) -> Tensor:
        """The tensor with its softened part in place, shape of `weight`; the inverse of `elements`."""
        if self.kind != "position":
            return elements.reshape(weight.shape)
        if weight.ndim == 3:
            grid = elements.T.unsqueeze(0)
            return torch.cat([weight[:, : self.prefix], grid], 1) if self.prefix else grid
        h, w = self.grid
        if _channels_last(weight, self.grid):
            return elements.T.reshape(1, h, w, -1)
        return elements.reshape(1, -1, h, w)

    def _grid_part(self, weight: Tensor) -> Tensor:
        if weight.ndim == 3:
            return weight[0, self.prefix :].T
        if _channels_last(weight, self.grid):
            return weight[0].flatten(0, 1).T
        return weight[0].flatten(1)


def _channels_last(weight: Tensor, grid: Grid) -> bool:
    return tuple(weight.shape[1:3]) == grid


def tensor_of(model: nn.Module, place: Place) -> Tensor:
    """The parameter at `place`."""
    found: Tensor = getattr(model.get_submodule(place.module), place.tensor)
    return found


def backbone(model: nn.Module) -> AbstractContextManager[nn.Module]:
    """The model whose places count, while the block runs.

    The model itself, or what a wrapper gives whose method `without_sites` lifts its own parts out, as the
    adapted models of lse-dec do: canonicalizers are not softened, and names are those of the base.
    """
    lifted = getattr(model, "without_sites", None)
    return nullcontext(model) if lifted is None else lifted()


def find_places(
    model: nn.Module,
    kinds: Iterable[str],
    places: Sequence[str] | Mapping[str, str] | None = None,
) -> list[Place]:
    """The places to soften, in the order of the model.

    Args:
        model: any model.
        kinds: kinds that are softened where `places` does not say otherwise.
        places: names of modules or parameters, or kinds; or a mapping from such names to what they are, see
            `parse_place`. None takes every place found of `kinds`. Linear layers are found by themselves
            only where timm calls them token mixing: name others.

    Raises:
        UnknownNameError: a name that is neither a place nor a kind.
        SoftError: a description that does not fit, or nothing to soften.
    """
    found = {place.name: place for place in _scan(model)}
    if places is None:
        wanted = set(kinds)
        chosen = [place for place in found.values() if place.kind in wanted]
        if not chosen:
            raise SoftError(
                f"{type(model).__name__} has no place of the kinds {', '.join(sorted(wanted))}; name layers "
                "and say what they are, for instance places={'fc1': 'image:16x16'}"
            )
        return chosen
    named = dict.fromkeys(places, "") if not isinstance(places, Mapping) else dict(places)
    picked: dict[tuple[str, str], Place] = {}
    for name, spec in named.items():
        if spec:
            new = parse_place(model, name, spec)
        elif name in found:
            new = [found[name]]
        elif name in KINDS:
            new = [place for place in found.values() if place.kind == name]
            if not new:
                raise SoftError(f"{type(model).__name__} has no place of the kind {name!r}")
        else:
            raise unknown_name("place", name, [*found, *KINDS], "Linear layers need a description.")
        picked.update({(place.module, place.tensor): place for place in new})
    order = {(module, tensor): i for i, (module, tensor) in enumerate(_tensors(model))}
    return sorted(picked.values(), key=lambda place: order[place.module, place.tensor])


def parse_place(model: nn.Module, name: str, spec: str) -> list[Place]:
    """Places from a description.

    Args:
        model: the model.
        name: of a module, or of a parameter.
        spec: "image:HxW", "mixing:HxW", "position:HxW", or "vectors:IN:OUT" with IN and OUT as
            VECTORS+SCALARS ("vectors:8+4:2+1"; "vectors:8:2" without scalars).

    Raises:
        UnknownNameError: no such module, parameter or kind.
        SoftError: a description that cannot be read.
        ShapeError: it does not fit the tensor.
    """
    kind, _, rest = spec.partition(":")
    if kind not in ("image", "mixing", "position", "vectors"):
        raise unknown_name("kind of place", kind, ["image", "mixing", "position", "vectors"])
    module, tensor = _locate(model, name)
    weight: Tensor = getattr(model.get_submodule(module), tensor)
    if kind == "vectors":
        return _vector_places(model, name, module, tensor, weight, rest)
    sides = re.fullmatch(r"(\d+)x(\d+)", rest)
    if sides is None:
        raise SoftError(f"{name}: expected {kind}:HEIGHTxWIDTH, for instance {kind}:14x14; got {spec!r}")
    grid = (int(sides[1]), int(sides[2]))
    n, shape = grid[0] * grid[1], tuple(weight.shape)
    fits = {
        "image": weight.ndim == 2 and n > 0 and shape[-1] % max(n, 1) == 0,
        "mixing": shape == (n, n),
        "position": (weight.ndim == 3 and shape[1] >= n)
        or (weight.ndim == 4 and grid in (shape[1:3], shape[2:])),
    }[kind]
    if not fits:
        raise ShapeError(f"{name} of shape {shape} is not {kind} over a grid of {grid[0]} x {grid[1]}")
    prefix = shape[1] - n if kind == "position" and weight.ndim == 3 else 0
    return [Place(name, module, tensor, kind, grid, prefix=prefix)]


def _vector_places(
    model: nn.Module, name: str, module: str, tensor: str, weight: Tensor, spec: str
) -> list[Place]:
    sides = re.fullmatch(r"(\d+)(?:\+(\d+))?:(\d+)(?:\+(\d+))?", spec)
    if sides is None:
        raise SoftError(f"{name}: expected vectors:IN:OUT, for instance vectors:8+4:2+1; got vectors:{spec}")
    inputs, outputs = ((int(sides[k]), int(sides[k + 1] or 0)) for k in (1, 3))
    if weight.ndim != 2:
        raise ShapeError(f"{name} of shape {tuple(weight.shape)} is not a linear map between features")
    made = [Place(name, module, tensor, "vectors", outputs=outputs, inputs=inputs)]
    if tensor == "weight" and isinstance(getattr(model.get_submodule(module), "bias", None), Tensor):
        bias = f"{name}.bias"
        made.append(Place(bias, module, "bias", "vectors", outputs=outputs, inputs=(0, 1)))
    return made


def _locate(model: nn.Module, name: str) -> tuple[str, str]:
    """(module, tensor) of a module's weight, or of a parameter."""
    modules = dict(model.named_modules())
    if name in modules and isinstance(getattr(modules[name], "weight", None), Tensor):
        return name, "weight"
    owner, _, tensor = name.rpartition(".")
    if owner in modules and isinstance(getattr(modules[owner], tensor, None), nn.Parameter):
        return owner, tensor
    known = [n for n, m in modules.items() if isinstance(m, nn.Linear | nn.Conv2d)]
    raise unknown_name("module or parameter", name, known)


def _tensors(model: nn.Module) -> Iterator[tuple[str, str]]:
    for name, module in model.named_modules():
        for tensor, _ in module.named_parameters(recurse=False):
            yield name, tensor


def _scan(model: nn.Module) -> Iterator[Place]:
    """All places that can be told from the model alone."""
    tokens = _token_grids(model)
    for name, module in model.named_modules():
        for tensor, value in module.named_parameters(recurse=False):
            if tensor in POSITIONS:
                place = _position(name, tensor, value, module)
                if place is not None:
                    yield place
        if isinstance(module, nn.Conv2d) and not isinstance(module, nn.ConvTranspose2d):
            size, stride = _two(module.kernel_size), _two(module.stride)
            if size != (1, 1):
                kind = "patch" if stride == size else "convolution"
                yield Place(name, name, "weight", kind, size, stride)
        elif isinstance(module, nn.Linear) and _mixes_tokens(name, module, tokens):
            yield Place(name, name, "weight", "mixing", tokens[module.in_features])


def _two(value: Any) -> Grid:
    return int(value[0]), int(value[1])


def _token_grids(model: nn.Module) -> dict[int, Grid]:
    """Grids of patches by their number of tokens."""
    found = {}
    for module in model.modules():
        grid = getattr(module, "grid_size", None)
        if isinstance(grid, tuple) and len(grid) == 2 and all(isinstance(n, int) for n in grid):
            found[grid[0] * grid[1]] = grid
    return found


def _mixes_tokens(name: str, module: nn.Linear, grids: Mapping[int, Grid]) -> bool:
    # timm's ResMLP and gMLP; elsewhere a width may equal the number of tokens by chance
    known = name.endswith(("linear_tokens", "gate.proj"))
    return known and module.in_features == module.out_features and module.in_features in grids


def _position(name: str, tensor: str, value: Tensor, module: nn.Module) -> Place | None:
    full = f"{name}.{tensor}" if name else tensor
    if value.ndim == 4 and value.shape[0] == 1:
        grid = _two(value.shape[1:3]) if value.shape[1] == value.shape[2] else _two(value.shape[2:])
        return Place(full, name, tensor, "position", grid)
    if value.ndim != 3 or value.shape[0] != 1:
        return None
    count = value.shape[1]
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None) or (math.isqrt(count),) * 2
    prefix = count - grid[0] * grid[1]
    if not 0 <= prefix <= MOST_PREFIX:
        return None
    return Place(full, name, tensor, "position", _two(grid), prefix=prefix)
