"""An ONNX file, of whatever maker, as a torch module, for commands that run any model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn

from lse_core.card import attach
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_export.errors import ExportError
from lse_export.gate.graph import inputs_of
from lse_export.metadata import facts_of, shown
from lse_export.runtime import TensorrtOptions, open_session, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxModel", "with_numbers"]

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
        provider: ONNX Runtime's execution provider for images on the CPU; those on a GPU run on CUDA.
        tensorrt: for the provider of that name.

    Attributes:
        facts: what the file says about itself.
        batch: its batch size, where only one is taken.
        weights: names of the files beside it that hold weights.
        fingerprint: a hash of the file.
        in_chans: channels of an image, where the file tells.
        img_size: (height, width) of an image, where the file tells.

    Raises:
        ExportError: the file cannot be run, or takes something else than images alone.
    """

    def __init__(self, path: Path, provider: str = "cpu", tensorrt: TensorrtOptions | None = None) -> None:
        super().__init__()
        self._path = path
        # says what is wrong with a file that cannot be run
        self._sessions: dict[str, onnxruntime.InferenceSession] = {
            "cpu": open_session(path, provider, tensorrt=tensorrt)
        }
        proto = onnx.load_model(path, load_external_data=False)
        self.facts = facts = facts_of(path, proto)
        told = [entry for tensor in proto.graph.initializer for entry in tensor.external_data]
        self.weights = sorted({entry.value for entry in told if entry.key == "location"})
        names = [value.name for value in inputs_of(proto.graph)]
        if len(names) != 1:
            some = f" ({', '.join(names[:5])})" if names else ""
            raise ExportError(
                f"{path} has {len(names)} inputs{some}; only files that take images alone can be run here"
            )
        if facts.kind not in KINDS or len(facts.shape) != 4:
            raise ExportError(
                f"{path} takes {facts.kind} {shown(facts.shape)}, and no images (batch, channels, height, "
                "width) or (batch, height, width, channels)"
            )
        raw = facts.raw_pictures()
        self._bytes = facts.kind == "uint8"
        _, first, _, last = facts.shape
        layout = "nhwc" if last in COLOURS and first not in COLOURS else "nchw"
        self._last = (raw.layout if raw is not None else layout) == "nhwc"
        self.batch = facts.shape[0]
        self._log = _ends_in_softmax(proto.graph)
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self._sides = (last, *facts.shape[1:3]) if self._last else facts.shape[1:]
        channels, height, width = self._sides
        if channels is not None:
            self.in_chans = channels
        if height is not None and width is not None:
            self.img_size = (height, width)
        attach(self, preprocess=self._told(), class_names=tuple(facts.class_names()) or None)

    def _told(self) -> Preprocess | None:
        """How pictures are prepared for `forward`, where the file tells."""
        told, size = self.facts.preprocess(), getattr(self, "img_size", None)
        if self._bytes:
            return self._whole_levels() if hasattr(self, "in_chans") and size is not None else None
        if told is not None and told.size is None and size is None:
            return told  # a segmentor, which takes any size
        if told is None and not {"lse.mean", "lse.std"} <= self.facts.metadata.keys():
            return None
        return self.prepared({})

    def _whole_levels(self) -> Preprocess:
        # bytes leave nothing to normalise; raw pictures are cut to the file's size, as `lse predict` does
        channels, raw = self.in_chans, self.facts.raw_pictures()
        values = {
            "channels": channels, "size": self.img_size, "mean": (0.0,) * channels, "std": (1.0,) * channels,
        }  # fmt: skip
        more = {"crop_mode": "squash"} if raw is None else {"colours": raw.preprocess.colours}
        return validated(Preprocess, values | more)

    def prepared(self, given: Mapping[str, Sequence[float]]) -> Preprocess:
        """How pictures are prepared for `forward`, with numbers `given` by name; their size must fit.

        Raises:
            ExportError: neither the file nor `given` says it, or they do not fit each other.
        """
        facts, path = self.facts, self.facts.where
        if self._bytes:
            if given:
                raise ExportError(f"{path} normalises pictures itself; leave mean and std out")
            return self._whole_levels()
        told, shape = facts.preprocess(), (self.batch, *self._sides)
        # sizes that the file leaves open are as the model was trained
        own = (told.channels, *(told.size or (None, None))) if told else (None,) * 3
        sides = [a if a is not None else b for a, b in zip(self._sides, own, strict=True)]
        if None in sides:
            raise ExportError(
                f"{path} takes {shown(shape)} and does not say of what size images must be; "
                "export it without --dynamic-size"
            )
        if any(b is not None and a != b for a, b in zip(sides, own, strict=True)):
            raise ExportError(
                f"{path} takes images {shown(shape)}, but its metadata prepare {own[0]} channels of "
                f"{own[1:]}; export it again"
            )
        for side, have in zip(("height", "width"), sides[1:], strict=True):
            least, most = facts.limits(side)
            if have is None or not least <= have <= (most or have):
                raise ExportError(
                    f"{path}: its metadata lse.{side} and lse.preprocess differ; export it again"
                )
        if told is not None:
            return with_numbers({**told.plain(), "size": sides[1:]}, given, path)
        # files of other makers, and of an older version: whole pictures, squashed to the input's size
        numbers = {name: given.get(name) or facts.numbers(f"lse.{name}") for name in ("mean", "std")}
        if None in numbers.values():
            raise ExportError(f"{path} does not say how images are normalised; give mean and std")
        values = {"channels": sides[0], "size": sides[1:], "crop_mode": "squash"}
        return with_numbers(values, {name: value for name, value in numbers.items() if value}, path)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (B, classes), or (B, classes, h, w), float32, of images (B, C, H, W)."""
        x = (images.float() * 255).round().clamp(0, 255) if self._bytes else images
        return self.run(x.permute(0, 2, 3, 1) if self._last else x)

    def run(self, images: Tensor) -> Tensor:
        """The same, of images of the file's own layout and levels."""
        provider = "cuda" if images.device.type == "cuda" else "cpu"
        if provider not in self._sessions:
            self._sessions[provider] = open_session(self._path, provider)
        session = self._sessions[provider]
        out = torch.cat([self._run(session, part) for part in images.split(self.batch or len(images))])
        if self._last and out.ndim == 4:
            out = out.permute(0, 3, 1, 2)
        out = out.to(images.device).float()
        return out.clamp_min(torch.finfo(torch.float32).tiny).log() if self._log else out

    def _run(self, session: onnxruntime.InferenceSession, part: Tensor) -> Tensor:
        missing = (self.batch or len(part)) - len(part)
        whole = torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part
        return next(iter(run(session, whole).values()))[: len(part)]


def with_numbers(values: Mapping[str, Any], given: Mapping[str, Sequence[float]], where: str) -> Preprocess:
    """The preprocessing `values` with the numbers that were given; one number stands for all channels."""
    spread = {k: list(v) * (values["channels"] if len(v) == 1 else 1) for k, v in given.items()}
    return validated(Preprocess, {**values, **spread}, where)


def _ends_in_softmax(graph: onnx.GraphProto) -> bool:
    """Whether the first output is a softmax, perhaps reshaped."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name) if graph.output else None
    while node is not None and node.op_type in PASSING:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"
