"""The demo's classifier: a small timm ResNet that reads three digits as one of 1,000 classes."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from lse_core.errors import ShapeError

__all__ = ["NumberHead", "number_classifier"]


class NumberHead(nn.Module):
    """Log-probabilities of the numbers 000 to 999 from three independent guesses at their digits.

    A plain layer of 1,000 classes would have to learn every number on its own; this one learns each
    digit in each place.

    Args:
        features: width of the input.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.digits = nn.Linear(features, 30)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) to log-probabilities (B, 1000)."""
        log_p = self.digits(x).view(-1, 3, 10).log_softmax(-1)
        first, second, third = log_p[:, 0], log_p[:, 1], log_p[:, 2]
        joint = first[:, :, None, None] + second[:, None, :, None] + third[:, None, None, :]
        return joint.flatten(1)


def number_classifier(resolution: int, channels: tuple[int, ...] = (16, 32, 64, 128)) -> nn.Module:
    """timm's resnet10t, narrow, for grey images (B, 1, R, R); its last map is flattened, not averaged.

    Averaging would forget which digit stood where.

    Raises:
        ShapeError: a resolution that is no multiple of 32, the network's stride.
    """
    if resolution < 32 or resolution % 32:
        raise ShapeError(f"the demo's images must have a side that is a multiple of 32; got {resolution}")
    model = timm.create_model(
        "resnet10t", in_chans=1, num_classes=1000, channels=channels, stem_width=channels[0]
    )
    model.global_pool = nn.Flatten()
    model.fc = NumberHead(channels[-1] * (resolution // 32) ** 2)
    return model
