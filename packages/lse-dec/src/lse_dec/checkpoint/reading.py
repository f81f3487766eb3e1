"""Reading `config.json` back, whichever version wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lse_core.errors import LSEError
from lse_core.settings import validated
from lse_dec.checkpoint.config import FORMAT, NAME, VERSION, CheckpointError, Config
from lse_dec.checkpoint.legacy import RUN, upgraded

__all__ = ["read_config"]


def read_config(folder: Path) -> Config:
    """Read and check `folder`/config.json, or what an older version left in its place.

    Raises:
        CheckpointError: absent, no JSON, not this format, from a newer version, or malformed.
    """
    path, raw = folder / NAME, _json(folder / NAME)
    if raw is None:
        run = _json(folder / RUN)
        if run is None:
            raise CheckpointError(
                f"{folder} holds no {NAME}: give a folder that lse_dec.save or lse train wrote"
            )
        path, raw = folder / RUN, upgraded(folder, None, run)
    else:
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise CheckpointError(f"{path} is no {FORMAT} config: its 'format' is not {FORMAT!r}")
        version = raw.pop("version", None)
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise CheckpointError(f"{path}: 'version' must be a whole number from 1; got {version!r}")
        if version > VERSION:
            raise CheckpointError(
                f"{path} is of format version {version}, written by lse-dec {raw.get('lse_dec', '?')}; "
                f"this one reads up to {VERSION}: pip install -U lse-dec"
            )
        if version == 1:
            raw = upgraded(folder, raw, _json(folder / RUN))
    try:
        return validated(Config, raw, str(path))
    except LSEError as error:
        raise CheckpointError(str(error)) from error


def _json(path: Path) -> Any:
    """The file's value; None where there is no such file.

    Raises:
        CheckpointError: unreadable or no JSON.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path} is no regular file")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
