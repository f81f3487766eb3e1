"""Every bound that settings and options document: what lies on it is taken, what lies beyond is refused."""

from __future__ import annotations

import ast
import importlib
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types as bounds
import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter

from lse_core.cli import main
from lse_core.errors import LSEError
from lse_core.plugins import registry
from lse_core.settings import Settings, validated

ROOT = Path(__file__).parents[2]
few = settings(max_examples=6, deadline=None, derandomize=True, database=None)
FAR = 10**6
"""Beyond a bound, where there is no other: as far as is tried."""

REQUIRED: dict[str, dict[str, Any]] = {
    "Adapt": {"sites": ["image"], "canonicalizer": "dec", "mode": "invariant"},
    "Bound": {"operator": "Conv", "because": "it is so"},
    "Data": {"name": "digits"},
    "DigitsConfig": {"count": 1},
    "Limit": {"because": "it is so"},
    "Model": {"name": "resnet10t"},
    "Preprocess": {"channels": 1, "mean": [0.5], "std": [0.5], "size": [8, 8]},
    "ObjectsConfig": {"train": 1, "test": 1},
    "RawPictures": {
        "source": [8, 8],
        "preprocess": {"channels": 1, "mean": [0.5], "std": [0.5], "size": [8, 8]},
    },
    "Recipe": {
        "table": "one",
        "title": "One",
        "run": {"data": {"name": "digits", "tests": {"all": {}}}},
        "axes": {"method": {"aug": {}}, "model": {"small": {}}},
        "reports": [{"rows": "method", "columns": "model"}],
    },
    "RunConfig": {"model": "resnet10t", "data": "digits", "steps": 1},
    "SceneConfig": {"count": 10},
}
"""What a class of settings cannot do without."""


def all_settings() -> Iterator[type[Settings]]:
    """All classes of settings of all packages; none is forgotten, for whoever defines one names the base."""
    for path in sorted(ROOT.glob("packages/*/src/**/*.py")):
        if path.name == "measurement.py":
            continue  # what `lse measure` writes, which nobody sets
        if any(
            isinstance(node, ast.ClassDef)
            and any(
                isinstance(base, ast.Name) and base.id.endswith(("Settings", "Named")) for base in node.bases
            )
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        ):
            parts = path.relative_to(ROOT).with_suffix("").parts[3:]
            module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
            yield from (
                value
                for value in vars(module).values()
                if isinstance(value, type)
                and issubclass(value, Settings)
                and value.__module__ == module.__name__
            )


@dataclass(frozen=True)
class Range:
    """Numbers that a field, or a place in its tuple, may have."""

    cls: type[Settings]
    field: str
    place: int | None
    length: int
    whole: bool
    low: float
    high: float
    low_open: bool
    high_open: bool

    def __str__(self) -> str:
        return f"{self.cls.__name__}.{self.field}" + ("" if self.place is None else f"[{self.place}]")

    def value(self, number: Any) -> Any:
        """The field's value with `number` in the place."""
        if self.place is None:
            return number
        usual = self.cls.model_fields[self.field].get_default(call_default_factory=True)
        values = list(usual if isinstance(usual, tuple) and len(usual) == self.length else [1] * self.length)
        values[self.place] = number
        return values

    def numbers(self, inside: bool) -> st.SearchStrategy[Any]:
        """Numbers within the bounds, the bounds first; or just beyond them and further."""
        low, high = self._end(self.low, self.low_open, 1), self._end(self.high, self.high_open, -1)
        if inside:
            ends = [st.just(end) for end in (low, high) if math.isfinite(end)]
            least, most = max(low, -FAR), min(high, max(FAR, low))
            between = st.integers(int(least), int(most)) if self.whole else st.floats(least, most)
            return st.one_of(*ends, between)
        step = 1 if self.whole else 0
        beyond = [
            st.one_of(
                st.just(end + side * step if self.whole else math.nextafter(end, side * math.inf)),
                st.integers(1, FAR).map(lambda far, end=end, side=side: end + side * far),
            )
            for end, side in ((low, -1), (high, 1))
            if math.isfinite(end)
        ]
        return st.one_of(*beyond)

    def _end(self, bound: float, is_open: bool, side: int) -> Any:
        if not math.isfinite(bound):
            return bound
        if self.whole:
            return int(bound) + side * is_open
        return math.nextafter(bound, side * math.inf) if is_open else float(bound)


def ranges(cls: type[Settings]) -> Iterator[Range]:
    """Every number of a class of settings that has a bound."""
    for name, field in cls.model_fields.items():
        yield from _ranges(cls, name, field.annotation, field.metadata, None, 1)


def _ranges(
    cls: type[Settings], name: str, kind: Any, told: Any, place: int | None, length: int
) -> Iterator[Range]:
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        told = list(chain(told, *(getattr(each, "metadata", None) or [each] for each in more)))
        yield from _ranges(cls, name, inner, told, place, length)
    elif get_origin(kind) in (Union, types.UnionType):
        for part in get_args(kind):
            yield from _ranges(cls, name, part, told, place, length)
    elif get_origin(kind) is tuple and place is None:
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        for i, part in enumerate(parts):
            yield from _ranges(cls, name, part, [], i, len(parts))
    elif kind in (int, float):
        lows = [(t.ge, False) for t in told if isinstance(t, bounds.Ge)]
        lows += [(t.gt, True) for t in told if isinstance(t, bounds.Gt)]
        highs = [(t.le, False) for t in told if isinstance(t, bounds.Le)]
        highs += [(t.lt, True) for t in told if isinstance(t, bounds.Lt)]
        low, high = max(lows, default=(-math.inf, False)), min(highs, default=(math.inf, False))
        if lows or highs:
            yield Range(cls, name, place, length, kind is int, low[0], high[0], low[1], high[1])


CLASSES = sorted(set(all_settings()), key=lambda cls: cls.__qualname__)
RANGES = [found for cls in CLASSES for found in ranges(cls)]


def test_settings_of_all_packages_are_found() -> None:
    names = {cls.__name__ for cls in CLASSES}
    assert {
        "RunConfig",
        "Optim",
        "Augment",
        "Recipe",
        "DigitsConfig",
        "ObjectsConfig",
        "RawPictures",
    } <= names
    assert len(RANGES) > 40


@pytest.mark.parametrize("of", RANGES, ids=str)
def test_what_lies_within_the_bounds_of_a_setting_is_taken(of: Range) -> None:
    field = of.cls.model_fields[of.field]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation  # type: ignore[index]
    alone: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))

    @few
    @given(number=of.numbers(inside=True))
    def check(number: Any) -> None:
        alone.validate_python(of.value(number))

    check()


@pytest.mark.parametrize("of", RANGES, ids=str)
def test_what_lies_beyond_the_bounds_of_a_setting_is_refused_in_one_line(of: Range) -> None:
    @few
    @given(number=of.numbers(inside=False))
    def check(number: Any) -> None:
        refused(of, number)

    check()
    for odd in (math.nan, math.inf, -math.inf, "many", [], {}, *([1.5] if of.whole else [])):
        refused(of, odd)


def refused(of: Range, number: Any) -> None:
    """One line names the field, whichever door the value comes in by."""
    usual = REQUIRED.get(of.cls.__name__, {})
    validated(of.cls, usual)
    with pytest.raises(LSEError) as caught:
        validated(of.cls, {**usual, of.field: of.value(number)}, "some.yaml")
    assert of.field in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def commands(
    group: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of `lse` with its words."""
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from commands(command, (*words, name))
    else:
        yield words, group


BOUNDED = [
    (words, option)
    for words, command in commands(main)
    for option in command.params
    if isinstance(option.type, click.IntRange | click.FloatRange)
]


def ends(kind: Any) -> Iterator[tuple[Any, Any]]:
    """Each end of a range of click's, as the last number within and the first one beyond."""
    whole = isinstance(kind, click.IntRange)
    for end, is_open, side in ((kind.min, kind.min_open, -1), (kind.max, kind.max_open, 1)):
        if end is not None:
            further = end + side if whole else math.nextafter(end, side * math.inf)
            nearer = end - side if whole else math.nextafter(end, -side * math.inf)
            yield (nearer, end) if is_open else (end, further)


@pytest.mark.parametrize(
    ("words", "option"),
    BOUNDED,
    ids=lambda part: part.name if isinstance(part, click.Parameter) else "-".join(part),
)
def test_options_of_commands_are_taken_at_their_bounds_and_refused_beyond(
    words: tuple[str, ...], option: click.Parameter
) -> None:
    for within, beyond in ends(option.type):
        assert option.type.convert(str(within), option, None) == within
        done = CliRunner().invoke(main, [*words, f"{option.opts[0]}={beyond}"], standalone_mode=True)
        assert done.exit_code == 2, done.output
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert option.opts[0] in done.stderr


def test_options_of_all_packages_are_found() -> None:
    assert len(BOUNDED) > 20
    assert {words[0] for words, _ in BOUNDED} >= {
        "warp",
        "adapt",
        "look",
        "export",
        "predict",
        "demo",
        "train",
    }
    assert registry().names("command")
