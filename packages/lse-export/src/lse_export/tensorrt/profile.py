"""Optimization profile: the least, the usual and the largest size of every axis that varies."""

from __future__ import annotations

from collections.abc import Mapping

from lse_core.errors import LSEError, unknown_name
from lse_export.errors import ExportError
from lse_export.gate.graph import Model

__all__ = ["BATCH", "Range", "Shapes", "parse_axis", "parse_shapes", "profile_shapes"]

Range = tuple[int, int, int]
"""Least, usual and largest size of an axis."""

Shapes = dict[str, tuple[list[int], list[int], list[int]]]
"""Least, usual and largest shape of every input, by its name."""

BATCH: Range = (1, 8, 32)
"""Of the batch axis where nothing else is said."""


def parse_axis(text: str) -> tuple[str, Range]:
    """Read "batch=1:8:32", or "batch=8" for a single size.

    Raises:
        LSEError: anything else.
    """
    name, _, sizes = text.partition("=")
    numbers = [int(n) if n.isdigit() else 0 for n in sizes.split(":")]
    if not name or len(numbers) not in (1, 3) or 0 in numbers:
        raise LSEError(f"{text!r} is no range of an axis; write NAME=MIN:OPT:MAX, such as batch=1:8:32")
    least, usual, largest = numbers if len(numbers) == 3 else numbers * 3
    return name, (least, usual, largest)


def parse_shapes(text: str) -> tuple[str, tuple[list[int], list[int], list[int]]]:
    """Read "image=1x3x8x8:4x3x8x8:8x3x8x8", an input's least, usual and largest shape.

    Raises:
        LSEError: anything else.
    """
    name, _, rest = text.partition("=")
    shapes = [[int(n) if n.isdigit() else 0 for n in shape.split("x")] for shape in rest.split(":")]
    if not name or len(shapes) != 3 or len({len(s) for s in shapes}) != 1 or any(0 in s for s in shapes):
        raise LSEError(
            f"{text!r} is no profile of an input; write NAME=MIN:OPT:MAX, "
            "such as image=1x3x224x224:8x3x224x224:32x3x224x224"
        )
    return name, (shapes[0], shapes[1], shapes[2])


def profile_shapes(model: Model, axes: Mapping[str, Range] | None = None) -> Shapes:
    """Shapes of a file's inputs at the least, usual and largest sizes of its axes.

    Args:
        model: the file.
        axes: ranges by the axis's name in the file; an axis without a name is called "INPUT.K", K counting
            from 0. The first axis of an input may be left out (`BATCH`), others not.

    Raises:
        UnknownNameError: the file has no such axis.
        ExportError: an axis without a range, or an input that is no tensor.
        LSEError: sizes that are not 1 <= least <= usual <= largest.
    """
    given = dict(axes or {})
    for name, (least, usual, largest) in given.items():
        if not 1 <= least <= usual <= largest:
            raise LSEError(f"axis {name!r}: sizes must rise from 1; got {least}, {usual}, {largest}")
    known: set[str] = set()
    shapes: Shapes = {}
    weights = {tensor.name for tensor in model.initializers}
    for value in model.proto.graph.input:
        if value.name in weights:  # files of old versions list them among the inputs
            continue
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise ExportError(f"{model.path}: input {value.name!r} is no tensor of a known rank")
        sizes: list[Range] = []
        for k, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                sizes.append((dim.dim_value, dim.dim_value, dim.dim_value))
                continue
            name = dim.dim_param or f"{value.name}.{k}"
            known.add(name)
            if name not in given and k > 0:
                raise ExportError(
                    f"axis {name!r} of input {value.name!r} varies and has no range; give it as "
                    f"--axis {name}=MIN:OPT:MAX"
                )
            sizes.append(given.get(name, BATCH))
        shapes[value.name] = ([s[0] for s in sizes], [s[1] for s in sizes], [s[2] for s in sizes])
    for name in given:
        if name not in known:
            raise unknown_name("axis that varies", name, known)
    return shapes
