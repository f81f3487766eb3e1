"""Small Swin with UPerNet's head, without augmentation."""
# ruff: noqa: F403, F405

from mmengine.config import read_base
from mmseg.models import CrossEntropyLoss, EncoderDecoder, SwinTransformer, UPerHead

with read_base():
    from ._base_.objects import *
    from ._base_.schedule import *

model = dict(
    type=EncoderDecoder,
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type=SwinTransformer,
        embed_dims=32,
        depths=(2, 2, 2),
        num_heads=(2, 4, 8),
        strides=(4, 2, 2),
        out_indices=(0, 1, 2),
        window_size=4,
        drop_path_rate=0.0,
    ),
    decode_head=dict(
        type=UPerHead,
        in_channels=[32, 64, 128],
        in_index=[0, 1, 2],
        channels=48,
        pool_scales=(1, 2, 4),
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
