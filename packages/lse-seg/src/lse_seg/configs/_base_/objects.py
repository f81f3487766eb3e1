"""Locally scaled objects, 128 x 128 px: `lse data make-objects --out data/objects`."""

from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmseg.datasets import LoadAnnotations, PackSegInputs
from mmseg.models import SegDataPreProcessor

from lse_seg import EquivarianceError, EquivarianceHook, IoUPerScale, ScaledObjectsDataset

data_root = "data/objects"
size = (128, 128)
data_preprocessor = dict(
    type=SegDataPreProcessor,
    mean=[127.5] * 3,
    std=[64.0] * 3,
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=32,
)

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations),
    dict(type=PackSegInputs),
]
meta_keys = ("img_path", "seg_map_path", "ori_shape", "img_shape", "pad_shape", "local_scale", "base_image")
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations),
    dict(type=PackSegInputs, meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    dataset=dict(type=ScaledObjectsDataset, data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ScaledObjectsDataset, data_root=data_root, split="val", pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ScaledObjectsDataset, data_root=data_root, split="test", pipeline=test_pipeline),
)

val_evaluator = [dict(type=IoUPerScale)]
test_evaluator = [dict(type=IoUPerScale), dict(type=EquivarianceError)]
custom_hooks = [dict(type=EquivarianceHook)]
