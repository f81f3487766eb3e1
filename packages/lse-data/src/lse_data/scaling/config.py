"""Settings of locally scaled photographs (paper, section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lse_data.config import DataSettings, Factors
from lse_data.fields import Count, Flag, Number, Seed, Share

__all__ = ["ScalingConfig"]

Within = Annotated[Number, Field(ge=0, le=20)]


class ScalingConfig(DataSettings):
    """How photographs become sets of photographs whose objects have other sizes.

    Attributes:
        factors: one picture is written for each; 0.7 makes the object 0.7 times as wide and high.
        detector: the plugin that says where objects are.
        segmenter: the plugin that finds an object's mask in its box; masks from files need none.
        inpainter: the plugin that fills in the place of the objects.
        options: settings of the three, by "detector", "segmenter" and "inpainter".
        anchor: the point of an object that stays: the middle of its bounding box ("centre"), or of the
            box's lower side ("foot"). An object that an edge of the picture cuts off stays at that edge.
        fit: move an object that would leave the picture so far that it does not, if there is room.
        crop: let the picture's edges cut off what leaves it all the same. Otherwise such a picture is
            rejected.
        others: what the other objects of a picture do, where the largest has the factor of the file's name:
            have the same factor ("same"), keep their size ("keep"), or have one of the factors at random
            ("random"). At factor 1 all keep their size.
        order: what is in front where objects meet: the objects that were named last ("given"), the smaller
            ones ("size"), or those whose lower end is lower in the picture, as it is with things that stand
            on the ground ("depth").
        soft: standard deviation in pixels of the blur of the masks' edges, 0 for none.
        margin: pixels around an object that are filled in with its place. The blur must end within them.
        solid: fill the holes of masks, and drop specks of less than a hundredth of the mask.
        min_quality: pictures of a lower quality in [0, 1] are rejected, see `lse_data.scaling.quality`.
        format: of the files, "JPEG" as the authors have, or "PNG", which keeps every pixel.
        jpeg_quality: of the former, as Pillow counts it.
        longest: pixels of the longer side to which larger pictures are reduced first.
        classes: the folders of the new pictures have the names of the folders of the old ones ("folders") or
            of the largest object ("objects"). None is "folders" where every picture lies in one.
        seed: of the random factors of `others`.
    """

    factors: Factors = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    detector: str = "files"
    segmenter: str = "grabcut"
    inpainter: str = "opencv"
    options: Mapping[str, Mapping[str, Any]] = {}
    anchor: Literal["centre", "foot"] = "centre"
    fit: Flag = False
    crop: Flag = False
    others: Literal["same", "keep", "random"] = "same"
    order: Literal["given", "size", "depth"] = "given"
    soft: Within = 1.0
    margin: Annotated[Count, Field(le=100)] = 5
    solid: Flag = False
    min_quality: Share = 0.0
    format: Literal["JPEG", "PNG"] = "JPEG"
    jpeg_quality: Annotated[Count, Field(le=100)] = 95
    longest: Annotated[Count, Field(ge=16, le=4096)] = 1024
    classes: Literal["folders", "objects"] | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _fits(self) -> ScalingConfig:
        if not all(0.05 <= factor <= 20 for factor in self.factors):
            raise ValueError(f"factors must lie within 0.05 and 20; got {list(self.factors)}")
        if len({f"{factor:g}" for factor in self.factors}) < len(self.factors):
            raise ValueError("factors must differ in their first six digits, which go into names of files")
        if 3 * self.soft > self.margin:
            raise ValueError(
                f"edges that are blurred by {self.soft:g} pixels need a margin of {3 * self.soft:g} "
                f"pixels; it is {self.margin}"
            )
        unknown = set(self.options) - {"detector", "segmenter", "inpainter"}
        if unknown:
            raise ValueError(
                f"settings belong to the detector, segmenter or inpainter, not to {min(unknown)!r}"
            )
        return self
