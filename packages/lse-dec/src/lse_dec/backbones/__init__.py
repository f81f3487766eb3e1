"""Backbone families: where their stages are and how their tensors are laid out."""

from __future__ import annotations

from lse_dec.backbones.base import IMAGE, Backbone, Stage
from lse_dec.backbones.families import (
    PVT,
    BEiT,
    ConvNeXt,
    HRNet,
    ResNet,
    Swin,
    TorchvisionConvNeXt,
    TorchvisionSwin,
    TorchvisionViT,
    ViT,
)
from lse_dec.backbones.finding import Generic, backbone_of, find_stage
from lse_dec.backbones.transformers_families import (
    TransformersSegFormer,
    TransformersSwin,
    TransformersViT,
)

__all__ = [
    "IMAGE",
    "PVT",
    "BEiT",
    "Backbone",
    "ConvNeXt",
    "Generic",
    "HRNet",
    "ResNet",
    "Stage",
    "Swin",
    "TorchvisionConvNeXt",
    "TorchvisionSwin",
    "TorchvisionViT",
    "TransformersSegFormer",
    "TransformersSwin",
    "TransformersViT",
    "ViT",
    "backbone_of",
    "find_stage",
]
