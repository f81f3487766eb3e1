"""An ONNX file, of whatever maker, as a torch module, for commands that run any model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from lse_core.card import attach
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_export.errors import ExportError
from lse_export.gate.graph import inputs_of
from lse_export.metadata import FileFacts, facts_of, shown
from lse_export.predict import preprocess_in
from lse_export.runtime import open_session, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxModel"]

KINDS = ("float16", "float32", "float64", "uint8")
PASSING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze")  # nodes that leave probabilities as they are
COLOURS = (1, 3)  # numbers of channels by which a foreign file's layout is told


class OnnxModel(nn.Module):
    """The first output of an ONNX file that takes images alone, as class scores.

    The file may have a fixed batch size, any name of its input, any opset that ONNX Runtime runs, and take
    images in either layout. Where it takes bytes, images are multiplied by 255. Where it ends in a softmax,
    the logarithm of its output is returned, whose softmax is that output. The card has what the metadata of
    an exported file tell.

    Args:
        path: the file.

    Attributes:
        fingerprint: a hash of the file.
        in_chans: channels of an image, where the file tells.
        img_size: (height, width) of an image, where the file tells.

    Raises:
        ExportError: the file cannot be run, or takes something else than images alone.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._session("cpu")  # says what is wrong with a file that cannot be run
        proto = onnx.load_model(path, load_external_data=False)
        facts = facts_of(path, proto)
        names = [value.name for value in inputs_of(proto.graph)]
        if len(names) != 1:
            raise ExportError(
                f"{path} has {len(names)} inputs ({', '.join(names[:5])}); only files that take images alone "
                "can be run here"
            )
        if facts.kind not in KINDS or len(facts.shape) != 4:
            raise ExportError(
                f"{path} takes {facts.kind} {shown(facts.shape)}, and no images (batch, channels, height, "
                "width) or (batch, height, width, channels)"
            )
        raw = facts.raw_pictures()
        self._bytes = facts.kind == "uint8"
        self._last = raw.layout == "nhwc" if raw is not None else _channels_last(facts.shape)
        self._batch = facts.shape[0]
        self._log = _ends_in_softmax(proto.graph)
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        sides = facts.shape[1:3] if self._last else facts.shape[2:]
        if (channels := facts.shape[3 if self._last else 1]) is not None:
            self.in_chans = channels
        if sides[0] is not None and sides[1] is not None:
            self.img_size = (sides[0], sides[1])
        attach(self, preprocess=self._told(facts), class_names=tuple(facts.class_names()) or None)

    def _told(self, facts: FileFacts) -> Preprocess | None:
        """How pictures are prepared for `forward`, where the file tells."""
        raw, told = facts.raw_pictures(), facts.preprocess()
        size: tuple[int, int] | None = getattr(self, "img_size", None)
        if self._bytes:
            channels: int | None = getattr(self, "in_chans", None)
            if channels is None or size is None:
                return None
            # bytes leave nothing to normalise; raw pictures are cut to the file's size, as `lse predict` does
            values = {"channels": channels, "size": size, "mean": (0.0,) * channels, "std": (1.0,) * channels}
            if raw is None:
                return validated(Preprocess, {**values, "crop_mode": "squash"})
            return validated(Preprocess, {**values, "colours": raw.preprocess.colours})
        if told is not None and told.size is None and size is None:
            return told  # a segmentor, which takes any size
        if told is None and not {"lse.mean", "lse.std"} <= facts.metadata.keys():
            return None
        return preprocess_in(facts, {})

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (B, classes), or (B, classes, h, w), float32, of images (B, C, H, W)."""
        x = (images.float() * 255).round().clamp(0, 255) if self._bytes else images
        x = x.permute(0, 2, 3, 1) if self._last else x
        session = self._session(images.device.type)
        out = torch.cat([self._run(session, part) for part in x.split(self._batch or len(x))])
        if self._last and out.ndim == 4:
            out = out.permute(0, 3, 1, 2)
        out = out.to(images.device).float()
        return out.clamp_min(torch.finfo(torch.float32).tiny).log() if self._log else out

    def _run(self, session: onnxruntime.InferenceSession, part: Tensor) -> Tensor:
        missing = (self._batch or len(part)) - len(part)
        whole = torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part
        return next(iter(run(session, whole).values()))[: len(part)]

    def _session(self, device: str) -> onnxruntime.InferenceSession:
        provider = "cuda" if device == "cuda" else "cpu"
        if provider not in self._sessions:
            self._sessions[provider] = open_session(self._path, provider)
        return self._sessions[provider]


def _channels_last(shape: Iterable[int | None]) -> bool:
    _, first, _, last = shape
    return last in COLOURS and first not in COLOURS


def _ends_in_softmax(graph: onnx.GraphProto) -> bool:
    """Whether the first output is a softmax, perhaps reshaped."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name) if graph.output else None
    while node is not None and node.op_type in PASSING:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"
