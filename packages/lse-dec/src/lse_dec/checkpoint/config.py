"""`config.json`: what it holds, and the checks on what is read back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lse_core.errors import LSEError, unknown_name

__all__ = ["FORMAT", "NAME", "VERSION", "CheckpointError", "Config"]

FORMAT = "lse-dec"
VERSION = 1
NAME = "config.json"


class CheckpointError(LSEError, ValueError):
    """A checkpoint folder is incomplete, damaged, from a newer version, or needs what is not here."""


@dataclass(frozen=True)
class Config:
    """Everything but the weights.

    Attributes:
        lse_dec: version of lse-dec that wrote it, for people.
        model: {"source": "timm", "name": ..., "kwargs": {...}}, or {"source": "given", "class": ...} for
            a model that `load` must be given.
        sites: names of the adapted stages, in order.
        mode: "invariant" or "equivariant".
        settings: `adapt`'s other keywords; a plugin with settings of its own is {"name", "settings"}.
        dtype: the weights' floating dtype, "float32" for instance.
        weights: {"file", "sha256"}: which file belongs to this config.
        plugins: the distribution behind each named plugin, {"solver:anderson": "lse-dec"}.
    """

    lse_dec: str
    model: dict[str, Any]
    sites: list[str]
    mode: str
    settings: dict[str, Any]
    dtype: str
    weights: dict[str, str]
    plugins: dict[str, str]

    def text(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Config:
        """Read and check `folder`/config.json.

        Raises:
            CheckpointError: absent, no JSON, not this format, from a newer version, or malformed.
        """
        path = folder / NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder} holds no {NAME}: not a folder written by lse_dec.save"
            ) from error
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise CheckpointError(f"{path} is no {FORMAT} config (its 'format' says otherwise)")
        version = raw.pop("version", None)
        if not isinstance(version, int) or version < 1:
            raise CheckpointError(f"{path}: 'version' must be a whole number from 1; got {version!r}")
        if version > VERSION:
            raise CheckpointError(
                f"{path} is of format version {version}, written by lse-dec {raw.get('lse_dec', '?')}; "
                f"this one reads up to {VERSION}: pip install -U lse-dec"
            )
        return cls._checked(raw, path)

    @classmethod
    def _checked(cls, raw: dict[str, Any], path: Path) -> Config:
        kinds: dict[str, type] = {f.name: _KINDS[str(f.type).partition("[")[0]] for f in fields(cls)}
        for name in raw:
            if name not in kinds:
                raise CheckpointError(f"{path}: {unknown_name('entry', name, kinds)}")
        for name, kind in kinds.items():
            if not isinstance(raw.get(name), kind):
                got = f"is {raw[name]!r}" if name in raw else "is missing"
                raise CheckpointError(f"{path}: {name!r} must be {_WORDS[kind]}; it {got}")
        config = cls(**raw)
        if not config.sites or not all(isinstance(site, str) for site in config.sites):
            raise CheckpointError(f"{path}: 'sites' must name at least one stage; it is {config.sites!r}")
        needed = {"timm": ("name", "kwargs"), "given": ("class",)}.get(config.model.get("source", ""))
        if needed is None or not all(key in config.model for key in needed):
            raise CheckpointError(f"{path}: 'model' must tell a timm name and kwargs, or a class given")
        if not all(isinstance(config.weights.get(key), str) for key in ("file", "sha256")):
            raise CheckpointError(f"{path}: 'weights' must tell a file and its sha256")
        if Path(config.weights["file"]).name != config.weights["file"]:
            raise CheckpointError(f"{path}: the weights' file must lie in the folder itself")
        return config


_KINDS: dict[str, type] = {"str": str, "dict": dict, "list": list}
_WORDS: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}
