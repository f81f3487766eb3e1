"""The locally scaled objects as a data set of mmsegmentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from lse_core.errors import DataError

__all__ = ["META_KEYS", "ScaledObjectsDataset"]

META_KEYS = ("local_scale", "base_image", "scaled_object")
"""What every test image knows about itself; name them in `PackSegInputs`' meta_keys for the metrics."""

DESCRIPTION = "objects.json"
"""What `lse data make-objects` says of the folder; it is written last."""

_NAME = re.compile(r"^(?P<base>.+)_object(?P<object>\d+)_scale_(?P<scale>\d+(?:\.\d+)?)$")


@DATASETS.register_module()
class ScaledObjectsDataset(BaseSegDataset):
    """The data set that `lse data make-objects` writes: images of objects, of which one is resized at a time.

    Classes and colours are read from the folder. An image called `000012_object0_scale_0.7.png` gets the
    entries `local_scale` 0.7, `base_image` "000012" (equal for all factors of one base image) and
    `scaled_object` 0; images without a factor in their name get `local_scale` 1 and `base_image` their
    name. Pictures of one's own, named in this way, are read as well if `metainfo` gives the classes.

    Args:
        data_root: the folder.
        split: "train", "val" or "test"; decides `data_prefix`, unless that is given.
        metainfo: classes and palette; None reads them from the folder's `objects.json`.
        kwargs: of `BaseSegDataset`.

    Raises:
        DataError: no finished data set at `data_root`, and no `metainfo`.
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        *,
        metainfo: dict[str, Any] | None = None,
        img_suffix: str = ".png",
        seg_map_suffix: str = ".png",
        **kwargs: Any,
    ) -> None:
        prefix = {"img_path": f"img_dir/{split}", "seg_map_path": f"ann_dir/{split}"}
        super().__init__(
            data_root=data_root,
            metainfo=_metainfo(Path(data_root)) if metainfo is None else metainfo,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            **{"data_prefix": prefix, **kwargs},
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images with their factors, sorted by base image and factor."""
        found: list[dict[str, Any]] = super().load_data_list()
        for info in found:
            info.update(_parse(Path(info["img_path"]).stem))
        if not found:
            raise DataError(f"there are no {self.img_suffix} images in {self.data_prefix['img_path']}")
        return sorted(found, key=lambda info: (info["base_image"], info["local_scale"], info["img_path"]))


def _metainfo(root: Path) -> dict[str, Any]:
    path = root / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        return {"classes": tuple(description["classes"]), "palette": description["palette"]}
    except FileNotFoundError as error:
        raise DataError(
            f"{root} holds no finished data set ({DESCRIPTION} is missing): "
            f"lse data make-objects --out {root}"
        ) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is damaged; generate the data set again ({error})") from error


def _parse(stem: str) -> dict[str, Any]:
    match = _NAME.match(stem)
    if match is None:
        return {"local_scale": 1.0, "base_image": stem, "scaled_object": -1}
    return {
        "local_scale": float(match["scale"]),
        "base_image": match["base"],
        "scaled_object": int(match["object"]),
    }
