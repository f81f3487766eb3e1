"""LaMa, the inpainting of the paper (section 5.3, step d), from an ONNX or a TorchScript file.

Needs the extra: `pip install 'lse-data[objects]'`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lse_core.errors import DataError, LSEError
from lse_data.scaling.stages import Mask, Picture

__all__ = ["Lama"]

STEP = 8  # the sides of what LaMa takes are multiples of so many pixels
HUB = re.compile(r"([\w.-]+/[\w.-]+):([\w./-]+)")
Run = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


class Lama:
    """LaMa (Suvorov and others 2022): fills in a hole with what goes on around it.

    The file takes a picture (1, 3, H, W) in [0, 1], RGB, and a hole (1, 1, H, W) of 0 and 1, in this order,
    and gives a picture. A file that takes one size only gets the picture resized to it.

    Args:
        model: the file, `.onnx` for ONNX and any other ending for TorchScript, or one on Hugging Face's hub
            such as "Carve/LaMa-ONNX:lama_fp32.onnx", taken from this machine's cache, and fetched with trust.
        white: the value of white in what the file gives, 1 or 255. By default 255 of an ONNX file and 1 of a
            TorchScript file, as the published ones have it.
        trust: fetch the file if it is not on this machine, and run TorchScript, which is a program.
        device: where it runs.

    Raises:
        LSEError: onnxruntime is not installed, or the file is missing, damaged, or a program without trust.
    """

    def __init__(
        self, model: str = "", white: float | None = None, trust: bool = False, device: str = "cpu"
    ) -> None:
        if not model:
            raise LSEError(
                "the inpainter lama needs a file: give --set inpainter.model=lama.onnx, or "
                "Carve/LaMa-ONNX:lama_fp32.onnx, which --trust fetches"
            )
        if white not in (None, 1, 255):
            raise LSEError(f"the inpainter's white must be 1 or 255; got {white:g}")
        self.file = _found(model, trust)
        self.size: tuple[int, int] | None = None
        if self.file.suffix == ".onnx":
            self.run, self.size = _onnx(self.file, device)
            self.white = white or 255.0
        else:
            self.run = _torchscript(self.file, trust, device)
            self.white = white or 1.0

    def __call__(self, picture: Picture, hole: Mask) -> Picture:
        """Fill in.

        Raises:
            DataError: the file gives no picture of this size, or one of another white.
        """
        height, width = hole.shape
        image: NDArray[Any] = picture.astype(np.float32) / 255.0
        mask: NDArray[Any] = hole.astype(np.float32)
        if self.size is not None:
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
            mask = (cv2.resize(mask, self.size[::-1], interpolation=cv2.INTER_AREA) > 0).astype(np.float32)
        else:
            more = [(0, -height % STEP), (0, -width % STEP)]
            image, mask = (
                np.pad(image, [*more, (0, 0)], mode="symmetric"),
                np.pad(mask, more, mode="symmetric"),
            )
        made = self.run(np.ascontiguousarray(image.transpose(2, 0, 1))[None], mask[None, None])
        if made.shape != (1, 3, *mask.shape):
            raise DataError(f"{self.file.name} gives {made.shape}, and must give {(1, 3, *mask.shape)}")
        if not np.isfinite(made).all():
            raise DataError(f"{self.file.name} gives numbers that are not finite")
        self._check_white(float(made.max()), float(image.max()))
        filled = made[0].transpose(1, 2, 0).astype(np.float32) * (255.0 / self.white)
        if self.size is not None:
            filled = cv2.resize(filled, (width, height), interpolation=cv2.INTER_CUBIC)
        return filled[:height, :width].round().clip(0, 255).astype(np.uint8)

    def versions(self) -> Mapping[str, str]:
        """What decides the background beside the settings, by name."""
        with self.file.open("rb") as stream:
            told = {"model": hashlib.file_digest(stream, "sha256").hexdigest()[:16]}
        if self.file.suffix == ".onnx":
            import onnxruntime

            told["onnxruntime"] = onnxruntime.__version__
        return told

    def _check_white(self, largest: float, before: float) -> None:
        """A picture keeps the brightness that it has around its hole, so a white that does not fit shows."""
        other = 1 if self.white == 255 else 255
        if largest > 2 * self.white or (self.white == 255 and before > 0.05 and largest <= 1.5):
            raise DataError(
                f"{self.file.name} gives values up to {largest:.3g}, where white should be {self.white:g}: "
                f"give --set inpainter.white={other}"
            )


def _found(model: str, trust: bool) -> Path:
    file, hub = Path(model), HUB.fullmatch(model)
    if file.is_file():
        return file
    if hub is None:
        raise LSEError(
            f"{model}: no such file of LaMa; --set inpainter.model takes an ONNX or TorchScript file"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise LSEError("files of Hugging Face's hub need: pip install 'lse-data[objects]'") from error
    try:
        return Path(hf_hub_download(hub[1], hub[2], local_files_only=not trust))
    except Exception as error:  # the hub's own, the network's, and the disk's
        told = " ".join(str(error).split())[:200]
        hint = f"is there a network? {told}" if trust else "--trust fetches it"
        raise LSEError(
            f"{model} is no file, and not in Hugging Face's cache on this machine; {hint}"
        ) from error


def _onnx(file: Path, device: str) -> tuple[Run, tuple[int, int] | None]:
    """What runs an ONNX file, and the (height, width) that it takes, None for any.

    On a processor one thread computes, so that results do not depend on their number.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise LSEError("ONNX files need onnxruntime: pip install 'lse-data[objects]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    kind, _, number = device.partition(":")
    wanted: Any = "CPUExecutionProvider"
    if kind == "cuda":
        wanted = ("CUDAExecutionProvider", {"device_id": int(number or 0)})
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=[wanted])
    except Exception as error:  # whatever a damaged file makes of the parser
        told = " ".join(str(error).split())[:200]
        raise LSEError(f"{file} cannot be read as an ONNX file: {told}") from error
    if kind == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise LSEError("onnxruntime finds no GPU that it can use; give --device cpu")
    inputs = session.get_inputs()
    shapes = [tuple(each.shape) for each in inputs]
    if [len(shape) for shape in shapes] != [4, 4] or (shapes[0][1], shapes[1][1]) != (3, 1):
        raise LSEError(
            f"{file}: its inputs must be a picture (1, 3, height, width) and a hole (1, 1, height, width); "
            f"they are {', '.join(str(list(shape)) for shape in shapes)}"
        )
    names = [each.name for each in inputs]

    def run(image: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
        (made, *_) = session.run(None, dict(zip(names, (image, mask), strict=True)))
        return np.asarray(made)

    height, width = shapes[0][2:]
    return run, (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _torchscript(file: Path, trust: bool, device: str) -> Run:
    import warnings

    import torch

    if not trust:
        raise LSEError(
            f"{file} is TorchScript, which is a program: give --trust to run it if you know where it comes "
            "from, or an ONNX file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # LaMa is published in this format, which is old
            model = torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a damaged file makes of the reader
        told = " ".join(str(error).split())[:200]
        raise LSEError(f"{file} cannot be read as a TorchScript file: {told}") from error

    def run(image: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            made = model(torch.from_numpy(image).to(device), torch.from_numpy(mask).to(device))
        found: NDArray[np.float32] = made.float().cpu().numpy()
        return found

    return run
