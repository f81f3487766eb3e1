"""Trained segmentors for export, as functions from images to logits, from mmengine's work folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from torch import Tensor, nn

from lse_core.card import attach
from lse_core.errors import LSEError
from lse_core.preprocess import Preprocess
from lse_dec.sites import CanonicalizedStage
from lse_seg.backbone import CanonicalizedBackbone
from lse_seg.running import load_config

__all__ = ["DenseSegmentor", "load_segmentor"]


class DenseSegmentor(nn.Module):
    """A segmentor as a function from images to logits, with what `lse_export` asks of adapted models.

    Args:
        segmentor: mmsegmentation's `EncoderDecoder` or a subclass, with or without canonicalizers.

    Attributes:
        sites: its canonicalized stages by name.
        canonicalizers: their canonicalizers.
        mode: "equivariant": logits are in place with the image.
        settings: what the canonicalizers were asked for.
    Its card (`lse_core.card_of`) says how pictures are normalised, and what the classes are called.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor: Any = segmentor
        self.sites = _sites(segmentor)
        self.canonicalizers = {name: site.canonicalizer for name, site in self.sites.items()}
        self.mode = "equivariant"
        backbone = segmentor.backbone
        frames = [getattr(segmentor, "frame", None), getattr(backbone, "adapted", None)]
        self.settings: dict[str, Any] = next((dict(f.settings) for f in frames if f is not None), {})
        attach(self, preprocess=_preprocess(segmentor), class_names=_class_names(segmentor))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of normalised images (B, C, H, W), colours in the order of the card."""
        size = images.shape[2:]
        logits: Tensor = self.segmentor.encode_decode(images, [{"img_shape": size, "pad_shape": size}])
        return logits


def load_segmentor(path: str | Path, *, trust: bool = False) -> DenseSegmentor:
    """Read a trained segmentor from what mmengine's Runner wrote.

    Args:
        path: the work folder, whose last checkpoint is taken, or a checkpoint in it. The config is the one
            that the Runner wrote beside it.
        trust: execute that config, which is Python code.

    Returns:
        The segmentor in eval mode on the CPU.

    Raises:
        LSEError: no checkpoint, no config or several beside it, no trust, or weights that do not fit the
            config.
    """
    checkpoint = Path(path)
    if checkpoint.is_dir():
        last = checkpoint / "last_checkpoint"
        if not last.is_file():
            raise LSEError(f"{path} contains no checkpoint of mmengine (the file last_checkpoint is missing)")
        # a folder that was moved still holds the file
        checkpoint = checkpoint / Path(last.read_text(errors="replace").strip()).name
    if not checkpoint.is_file():
        raise LSEError(f"{checkpoint}: no such checkpoint")
    configs = sorted(checkpoint.parent.glob("*.py"))
    if len(configs) != 1:
        found = ", ".join(c.name for c in configs) or "none"
        raise LSEError(f"beside {checkpoint} there must be one config; found: {found}")
    if not trust:
        raise LSEError(
            f"{configs[0]} is a config of mmengine, which is Python code and would be executed: if you trust "
            "where it comes from, pass trust=True (--trust)"
        )
    return DenseSegmentor(_built(load_config(configs[0]), checkpoint)).eval()


def _built(config: Config, checkpoint: Path) -> nn.Module:
    init_default_scope(config.get("default_scope", "mmseg"))
    model: nn.Module = MODELS.build(config.model)
    try:
        load_checkpoint(model, str(checkpoint), map_location="cpu", strict=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise LSEError(f"{checkpoint} does not fit the config beside it: {text}") from error
    return model


def _sites(segmentor: Any) -> dict[str, CanonicalizedStage]:
    if hasattr(segmentor, "sites"):
        return dict(segmentor.sites)
    if isinstance(segmentor.backbone, CanonicalizedBackbone):
        return {f"backbone.{name}": site for name, site in segmentor.backbone.adapted.sites.items()}
    return {}


def _preprocess(segmentor: Any) -> Preprocess | None:
    """Of mmsegmentation's data preprocessor, which counts in 0..255 and gets BGR from OpenCV's loader."""
    given = segmentor.data_preprocessor
    if not getattr(given, "_enable_normalize", False):
        return None
    mean, std = ((v / 255.0).flatten().tolist() for v in (given.mean, given.std))
    return Preprocess(
        channels=len(mean),
        size=None,
        crop_mode="squash",
        interpolation="bilinear",
        mean=tuple(mean),
        std=tuple(std),
        colours="rgb" if given.channel_conversion or len(mean) != 3 else "bgr",
    )


def _class_names(segmentor: Any) -> tuple[str, ...] | None:
    """As mmsegmentation keeps them, where it does."""
    names = (getattr(segmentor, "dataset_meta", None) or {}).get("classes")
    return None if names is None else tuple(str(name) for name in names)
