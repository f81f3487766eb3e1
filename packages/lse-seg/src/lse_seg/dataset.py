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

MANIFEST = "manifest.json"
"""What `lse data scale-objects` says of the folder; it is written last."""

_NAME = re.compile(r"^(?P<base>.+)_object(?P<object>\d+)_scale_(?P<scale>\d+(?:\.\d+)?)$")


@DATASETS.register_module()
class ScaledObjectsDataset(BaseSegDataset):
    """The data set that `lse data make-objects` writes: images of objects, of which one is resized at a time.

    Classes and colours are read from the folder. An image called `000012_object0_scale_0.7.png` gets the
    entries `local_scale` 0.7, `base_image` "000012" (equal for all factors of one base image) and
    `scaled_object` 0; images without a factor in their name get `local_scale` 1 and `base_image` their
    name. The photographs of `lse data scale-objects` are read as well, all of them as one split: there
    `base_image` is the photograph and `scaled_object` its largest object. Pictures of
    one's own, named in the first way, are read as well if `metainfo` gives the classes.

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
        self._scaled = _scaled(Path(data_root)) if metainfo is None else None
        if self._scaled is not None:
            metainfo, _ = self._scaled
            kwargs = {"data_prefix": {"img_path": "images", "seg_map_path": "masks"}, **kwargs}
            img_suffix = metainfo.pop("suffix")
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
            if self._scaled is None:
                info.update(_parse(Path(info["img_path"]).stem))
            else:
                told = self._scaled[1]
                info.update(told[Path(info["img_path"]).relative_to(self.data_root).as_posix()])
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


def _scaled(root: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
    """Classes and entries of each file of `lse data scale-objects`; None where it wrote nothing.

    Its masks number the objects of a picture, so every image has a `label_map` of its own.
    """
    path = root / MANIFEST
    if (root / DESCRIPTION).exists() or not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        classes = manifest["classes"]
        meta = {"classes": tuple(classes), "palette": manifest["palette"],
                "suffix": f".{manifest['settings']['format']}"}  # fmt: skip
        found = {}
        for record in manifest["pictures"]:
            things = record.get("objects", ())
            for result in record.get("results", ()):
                found[result["file"]] = {
                    "local_scale": result["factor"],
                    "base_image": record["source"],
                    "scaled_object": max(range(len(things)), key=lambda i: things[i]["area"]),
                    "label_map": {
                        i: classes.index(thing["name"] or "object") for i, thing in enumerate(things, start=1)
                    },
                }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged; make the data set again ({error})") from error
    return meta, found


def _parse(stem: str) -> dict[str, Any]:
    match = _NAME.match(stem)
    if match is None:
        return {"local_scale": 1.0, "base_image": stem, "scaled_object": -1}
    return {
        "local_scale": float(match["scale"]),
        "base_image": match["base"],
        "scaled_object": int(match["object"]),
    }
