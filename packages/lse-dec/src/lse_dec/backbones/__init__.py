"""Backbone families: where their stages are and how their tensors are laid out."""

from __future__ import annotations

from lse_dec.backbones.base import IMAGE, Backbone, Stage, backbone_of, find_stage
from lse_dec.backbones.resnet import ResNet
from lse_dec.backbones.vit import ViT

__all__ = ["IMAGE", "Backbone", "ResNet", "Stage", "ViT", "backbone_of", "find_stage"]
