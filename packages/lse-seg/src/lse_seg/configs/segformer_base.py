"""Small SegFormer, without augmentation."""
# ruff: noqa: F403, F405

from mmengine.config import read_base
from mmseg.models import CrossEntropyLoss, EncoderDecoder, MixVisionTransformer, SegformerHead

with read_base():
    from ._base_.objects import *
    from ._base_.schedule import *

model = dict(
    type=EncoderDecoder,
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type=MixVisionTransformer,
        embed_dims=24,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 6],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratio=3,
    ),
    decode_head=dict(
        type=SegformerHead,
        in_channels=[24, 48, 96, 144],
        in_index=[0, 1, 2, 3],
        channels=64,
        num_classes=19,
        dropout_ratio=0.0,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        # the background counts a tenth, as in section A1
        loss_decode=dict(type=CrossEntropyLoss, class_weight=[0.1] + [1.0] * 18, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
