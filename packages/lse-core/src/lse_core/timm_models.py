"""timm models from a name and keywords of any origin, without fetching or running anything else.

timm is imported when first needed: only functions of this module need it, and they say so where it is absent.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from lse_core.errors import LSEError, UnknownNameError, unknown_name
from lse_core.plugins import registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FETCHING", "check_keywords", "check_name", "imagenet_names", "make", "reason_of", "timm_keywords"]

FETCHING = ("cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
"""Keywords of `timm.create_model` that read weights from a file or the network."""


def make(name: str, kwargs: Mapping[str, Any], *, pretrained: bool = False, trust: bool = False) -> nn.Module:
    """Make the timm model `name`.

    Args:
        name: as timm lists it; no scheme, no path.
        kwargs: keywords of `timm.create_model`; lists stand for tuples.
        pretrained: load timm's own weights for the name, which may need the network; else random ones.
        trust: accept any keyword, not only those that describe an architecture.

    Raises:
        UnknownNameError: timm does not know the name.
        LSEError: timm is not installed or cannot make the model, or a keyword is refused.
    """
    check_name(name)
    for key in kwargs:
        if key in FETCHING:
            raise LSEError(
                f"the keyword {key!r} of the model {name!r} would "
                f"read weights from another file: leave it out"
            )
    if not trust:
        check_keywords(name, kwargs)
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    try:
        model: nn.Module = _timm().create_model(name, pretrained=pretrained, **plain)
    except Exception as error:  # whatever a constructor or a download raises
        raise LSEError(f"timm cannot make the model {name!r}: {reason_of(error)}") from error
    return model


def check_name(name: str) -> None:
    """Raise UnknownNameError unless `name` is a model of timm, or one that a plugin registered with timm."""
    timm = _timm()
    registry().items("backbone")  # plugins register their models with timm when they are imported
    if ":" in name or "/" in name:
        raise UnknownNameError(
            f"unknown timm model {name!r}: names with a scheme or a path are not followed; "
            "give a name that timm lists"
        )
    if not timm.is_model(name):
        hint = "timm.list_models() in Python lists them."
        raise unknown_name("timm model", name, timm.list_models(), hint)


def reason_of(error: Exception) -> str:
    """What the constructor of a model raised, in one line; for an unknown keyword with the nearest one."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    unknown = re.search(r"unexpected keyword argument '(\w+)'", reason)
    close = get_close_matches(unknown[1], sorted(timm_keywords()), n=1, cutoff=0.6) if unknown else []
    return f"{reason}; did you mean {close[0]!r}?" if close else reason


@cache
def timm_keywords() -> frozenset[str]:
    """Keywords of timm's model classes: they say what an architecture looks like, and nothing else.

    What `timm.create_model` itself takes, which could fetch or read weights, is not among them.
    """
    from torch import nn

    names: set[str] = set()
    for module in vars(_timm().models).values():
        if not inspect.ismodule(module) or not module.__name__.startswith("timm.models."):
            continue
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, nn.Module):
                taken = inspect.signature(kind).parameters
                names |= set(taken) if "num_classes" in taken else set()
    return frozenset(names - {*FETCHING, "kwargs", "args", "device"})


def check_keywords(name: str, kwargs: Mapping[str, Any], known: Iterable[str] = ()) -> None:
    """Raise an error for keywords that do more than describe an architecture.

    Args:
        name: the model, for messages.
        kwargs: what is to be checked.
        known: keywords allowed beside `timm_keywords`.

    Raises:
        LSEError: a keyword that is not on the list, or a value that is no number, word or list.
    """
    allowed = timm_keywords() | set(known)
    advice = "if you trust where it comes from, pass trust=True (--trust)"
    for key, value in kwargs.items():
        if key not in allowed:
            close = get_close_matches(key, sorted(allowed), n=1, cutoff=0.7)
            raise LSEError(
                f"the model {name!r} is given the keyword {key!r}, which is not among those that only "
                f"describe an architecture{f' (did you mean {close[0]!r}?)' if close else ''}; {advice}"
            )
        if not _is_word(value):
            raise LSEError(
                f"the keyword {key!r} of the model {name!r} must be a number to 100,000, a word or a list; "
                f"{advice}"
            )


def imagenet_names(model: nn.Module) -> tuple[str, ...] | None:
    """What the classes of timm's ImageNet weights are called; None for other weights or another head."""
    _timm()
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model.pretrained_cfg)
    if subset is None:
        return None
    names = tuple(ImageNetInfo(subset).label_descriptions())
    return names if len(names) == model.num_classes else None


def _is_word(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_word(item) for item in value)
    if isinstance(value, str):
        return re.fullmatch(r"[\w.\-]*", value) is not None
    return value is None or (isinstance(value, bool | int | float) and abs(value) <= 100_000)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise LSEError("models are made by timm, which is not installed: pip install timm") from error
    return timm
