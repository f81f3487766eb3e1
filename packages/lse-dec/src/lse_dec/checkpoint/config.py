"""`config.json`: what it holds, and the checks on what is read back."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lse_core.errors import LSEError
from lse_core.preprocess import Preprocess
from lse_core.settings import Settings

__all__ = [
    "FORMAT",
    "NAME",
    "VERSION",
    "WEIGHTS",
    "Adapt",
    "CheckpointError",
    "Config",
    "Source",
    "Weights",
]

FORMAT = "lse-dec"
VERSION = 2
NAME = "config.json"
WEIGHTS = "model.safetensors"


class CheckpointError(LSEError, ValueError):
    """A checkpoint folder is incomplete, damaged or from a newer version, or needs what is not installed."""


class Source(Settings):
    """How to make the base model again, with random weights.

    Attributes:
        source: "timm"; "plugin", a function that an installed plugin provides (hook `lse_models`);
            "factory", any function, which `load` calls only if it is told to trust the folder; or
            "given", a model that `load` must be given.
        name: timm's name, the plugin's, "module:function", or the class of a model given.
        kwargs: keywords that it is made with.
    """

    source: Literal["timm", "plugin", "factory", "given"]
    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Adapt(Settings):
    """What `lse_dec.adapt` was asked for.

    Attributes:
        sites: names of the adapted stages, in order.
        mode: "invariant" or "equivariant".
        settings: `adapt`'s other keywords; a plugin with settings of its own is {"name", "settings"}.
        plugins: the distribution behind each named plugin, {"solver:anderson": "lse-dec"}.
    """

    sites: Annotated[tuple[str, ...], Field(min_length=1)]
    mode: str
    settings: dict[str, Any]
    plugins: dict[str, str]


class Weights(Settings):
    """Which file belongs to the config.

    Attributes:
        file: its name, in the folder itself.
        sha256: its checksum; None in folders of an older version that did not tell.
    """

    file: str
    sha256: str | None

    @field_validator("file")
    @classmethod
    def _inside(cls, name: str) -> str:
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ValueError("the weights' file must lie in the folder itself")
        return name


class Config(Settings):
    """Everything but the weights.

    Attributes:
        lse_dec: version of lse-dec that wrote it, for people.
        model: how to make the base.
        adapt: how it was adapted; None for a model without canonicalizers.
        preprocess: how the model wants its pictures; None where nobody said.
        class_names: of its outputs, in order; None where nobody said.
        training: settings of the run that trained it, without what stands above; None for none.
        dtype: the weights' floating dtype, "float32" for instance.
        weights: which file belongs to this config.
    """

    lse_dec: str
    model: Source
    adapt: Adapt | None
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    training: dict[str, Any] | None = None
    dtype: str
    weights: Weights

    def text(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, "version": VERSION, **self.plain()}, indent=2) + "\n"
