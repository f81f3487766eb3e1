"""Backbone families: where their stages are and how their tensors are laid out."""

from __future__ import annotations

from lse_dec.backbones.base import IMAGE, Backbone, Stage, backbone_of, find_stage
from lse_dec.backbones.beit import BEiT
from lse_dec.backbones.convnext import ConvNeXt
from lse_dec.backbones.generic import Generic
from lse_dec.backbones.hrnet import HRNet
from lse_dec.backbones.pvt import PVT
from lse_dec.backbones.resnet import ResNet
from lse_dec.backbones.swin import Swin
from lse_dec.backbones.vit import ViT

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
    "ViT",
    "backbone_of",
    "find_stage",
]
