"""The preview sheet: a strip for each photograph, with its mask, its background and some of its versions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lse_data.preview import grid
from lse_data.scaling.stages import Picture

__all__ = ["sheet", "strip"]

COLUMNS = 5


def strip(cells: Sequence[tuple[str, Picture]], record: Mapping[str, Any]) -> bytes:
    """One photograph's row as a PNG, its name and, if it was rejected, the kind of its fault below."""
    said = record["source"] if record["status"] == "kept" else f"{record['source']}: {record['kind']}"
    captions = [(text, said if number == 0 else "") for number, (text, _) in enumerate(cells[:COLUMNS])]
    drawn = grid([cell for _, cell in cells[:COLUMNS]], 1, COLUMNS, captions, font=11)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, format="PNG")
    return buffer.getvalue()


def sheet(strips: Sequence[Path]) -> bytes | None:
    """Strips below each other as a PNG; None where there are none."""
    if not strips:
        return None
    rows = []
    for file in strips:
        with Image.open(file) as picture:
            rows.append(np.asarray(picture.convert("RGB")))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, format="PNG")
    return buffer.getvalue()
