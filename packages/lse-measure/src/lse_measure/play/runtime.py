"""ONNX Runtime Web, which runs ONNX files in a browser: found on this machine, never fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

from lse_core.errors import LSEError

__all__ = ["FILES", "copy_runtime", "find_runtime"]

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page loads of it; about 14 MB."""

PLACES = (".", "dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist")


def find_runtime(folder: Path | None = None) -> Path:
    """The folder with `FILES`.

    Args:
        folder: where npm installed ONNX Runtime Web, or its package was unpacked; None looks into the
            `node_modules` of the present folder and of those above it, as npm's own programs do.

    Raises:
        LSEError: it is not there; the line says how to get it.
    """
    starts = [folder] if folder is not None else [Path.cwd(), *Path.cwd().parents]
    for place in (start / name for start in starts for name in PLACES):
        if all((place / file).is_file() for file in FILES):
            return place
    where = f"in {folder}" if folder is not None else "in node_modules of this folder or of one above it"
    raise LSEError(
        f"ONNX Runtime Web, which runs the models in the browser, is not {where}: run "
        "`npm install onnxruntime-web` here, or unpack that package and name its folder by --runtime"
    )


def copy_runtime(source: Path, target: Path) -> None:
    """Copy `FILES` from one folder to another, which is made."""
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(source / file, target / file)
