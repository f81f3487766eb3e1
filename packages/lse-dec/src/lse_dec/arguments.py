"""Finding the argument of a call that holds the features: the first one, passed by position or by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lse_core.errors import DTypeError, LSEError

__all__ = ["call_with", "first_parameter", "given_features"]


def first_parameter(module: nn.Module) -> str | None:
    """The name of the argument by which `module`'s forward takes features; None for `*args`."""
    found = _first(module)
    return None if found is None else found.name


def given_features(
    what: str, entry: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, str | None]:
    """Return the features that a call passes and their keyword (None for the first positional argument).

    Args:
        what: the called module, for the error's text.
        entry: the keyword that its forward knows, see `first_parameter`; None takes the only tensor.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Raises:
        LSEError: no features are given.
        DTypeError: what is given is no tensor.
    """
    if args:
        return _tensor(what, args[0]), None
    name = entry
    if entry is None:
        tensors = [key for key, value in kwargs.items() if isinstance(value, Tensor)]
        name = tensors[0] if len(tensors) == 1 else None
    if name is None or kwargs.get(name) is None:
        by = f"as the first argument or as {entry}=" if entry else "as the first argument"
        raise LSEError(
            f"{what} got no features: pass the tensor {by}; "
            f"got {', '.join(f'{key}=' for key in kwargs) or 'no arguments'}"
        )
    return _tensor(what, kwargs[name]), name


def _tensor(what: str, given: Any) -> Tensor:
    if not isinstance(given, Tensor):
        raise DTypeError(
            f"{what} takes a torch tensor; got {type(given).__name__}: torch.as_tensor makes one of an array"
        )
    return given


def call_with(module: nn.Module, features: Tensor) -> Any:
    """Call `module` with features alone, by keyword if its forward takes them in no other way."""
    found = _first(module)
    if found is not None and found.kind is inspect.Parameter.KEYWORD_ONLY:
        return module(**{found.name: features})
    return module(features)


def _first(module: nn.Module) -> inspect.Parameter | None:
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # compiled to TorchScript, for instance
        return None
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameters[0] if parameters and parameters[0].kind not in variadic else None
