"""Small Swin with UPerNet's head, DEC: deep equilibrium canonicalizers at the image and at a latent stage."""
# ruff: noqa: F403, F405

from mmengine.config import read_base

from lse_seg import CanonicalizedBackbone, CanonicalizedSegmentor

with read_base():
    from .swin_uper_aug import *

# assigned, because update() would merge the new backbone into the old one
model["backbone"] = dict(type=CanonicalizedBackbone, backbone=model["backbone"], sites="stages.1")
model.update(
    type=CanonicalizedSegmentor,
    canonicalizer=dict(canonicalizer="dec", steps=5),
    canonicalizer_loss=dict(weight=1.0, steps=(3, 8), centre=1.0),
)
