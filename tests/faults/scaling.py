"""Photographs whose objects are to be resized: boxes, masks, models and folders that do not fit."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import object_models
from faults.fault import Fault, both, edit, fault, write
from PIL import Image

PICTURE = "photos/cup/0.png"  # 40 x 36 pixels
MADE = ("new", "new/*")
ONE = f"data scale-objects {PICTURE} --out new --factors 0.7,1,1.3 --jobs 1"
ALL = "data scale-objects photos --out new --factors 0.7,1,1.3 --jobs 1"
BOX = "--box 10,10,30,28"
PLACE = np.mgrid[:36, :40]
DISC = (PLACE[0] - 18) ** 2 + (PLACE[1] - 20) ** 2 < 64
XML = """<annotation><object><name>{name}</name><bndbox><xmin>12</xmin><ymin>11</ymin><xmax>28</xmax>
<ymax>26</ymax></bndbox></object></annotation>"""


def mask(shown: np.ndarray, picture: str = PICTURE) -> Callable[[Path], None]:
    """Writes the mask of a picture beside it."""

    def run(place: Path) -> None:
        values = np.where(shown, np.uint8(255), np.uint8(0))
        Image.fromarray(values).save((place / picture).with_suffix(".mask.png"))

    return run


def pictures(mode: str) -> Callable[[Path], None]:
    """Makes all pictures grey, of 8 or 16 bits, each with a disc and its mask."""

    def run(place: Path) -> None:
        for path in sorted((place / "photos").rglob("*.png")):
            values = np.where(DISC, 220, 60).astype(np.uint8)
            deep = values.astype(np.uint16) * 257
            Image.fromarray(deep if mode == "I;16" else values).save(path)
            mask(DISC, path.relative_to(place).as_posix())(place)

    return run


class Command:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> object:
        return os.system, ("touch executed",)


def sam(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Writes a folder of SAM and then spoils it."""

    def run(place: Path) -> None:
        object_models.write_sam(place / "sam")
        change(place)

    return run


def pickled(place: Path) -> None:
    (place / "sam/model.safetensors").unlink()
    (place / "sam/pytorch_model.bin").write_bytes(pickle.dumps(Command()))


def killed(**changes: object) -> Callable[[Path], None]:
    """A run that was killed before its first picture, of settings that differ by `changes`."""

    def run(place: Path) -> None:
        (place / "new/.unfinished/records").mkdir(parents=True)
        told = {"version": 1, "settings": changes, "versions": {}}
        (place / "new/.unfinished/run.json").write_text(json.dumps(told))

    return run


FAULTS: list[Fault] = [
    fault(
        "a photograph without a box", ONE, "all 1 photographs were rejected", "finds no object", changes=MADE
    ),
    fault(
        "photographs without a box, among those that have one",
        f"{ALL} --json",
        '"no_object": 3',
        '"kept": 1',
        prepare=mask(DISC),
        status=0,
        changes=MADE,
    ),
    *(
        fault(f"{what} of a photograph", ONE, *words, prepare=mask(shown), changes=MADE)
        for what, shown, words in (
            ("an empty mask", DISC & False, ("0.png", "mask of object 0 is empty")),
            ("a full mask", DISC | True, ("0.png", "whole picture, without background")),
            ("a mask from edge to edge", PLACE[0] // 12 == 1, ("cut off at the picture's left and right",)),
            ("a mask for another size", DISC[:20], ("made for a picture of 40 x 20 pixels",)),
        )
    ),
    fault(
        "an object that leaves the picture at a factor",
        ONE.replace("1.3", "2.6"),
        "at factor 2.6",
        "--fit moves it",
        "--crop",
        prepare=mask(DISC),
        changes=MADE,
    ),
    fault("a factor of nothing", ONE.replace("0.7", "0"), "'factors.0': input should be greater than 0"),
    *(
        fault(
            f"photographs of {what}",
            f"{ALL} --json",
            '"kept": 4',
            '"not_rgb": 4',
            prepare=pictures(mode),
            status=0,
            changes=MADE,
        )
        for what, mode in (("grey values", "L"), ("grey values of 16 bits", "I;16"))
    ),
    fault(
        "a damaged photograph with a box",
        f"{ONE} {BOX}",
        "0.png: cannot identify image file",
        prepare=write(PICTURE, b"x"),
        changes=MADE,
    ),
    fault(
        "a damaged mask",
        ONE,
        "cannot be read as a mask",
        prepare=write("photos/cup/0.mask.png", b"x"),
        changes=MADE,
    ),
    fault(
        "damaged boxes of Pascal VOC",
        ONE,
        "0.xml cannot be read as boxes",
        prepare=write("photos/cup/0.xml", "<annotation><object>"),
        changes=MADE,
    ),
    fault(
        "damaged annotations of COCO",
        f"{ONE} --boxes boxes.json",
        "boxes.json cannot be read",
        prepare=write("boxes.json", "{"),
    ),
    fault("boxes that are not there", f"{ONE} --boxes gone.json", "gone.json: no such folder"),
    fault("a box that is none", f"{ONE} --box 30,10,10,28", "box", changes=MADE),
    fault(
        "boxes of Pascal VOC that grow when they are read",
        ONE,
        "defines entities",
        prepare=write("photos/cup/0.xml", '<!DOCTYPE a [<!ENTITY a "aa">]><annotation>&a;</annotation>'),
        changes=MADE,
        would="exhaust the memory, or read any file",
    ),
    fault(
        "an object that is called like a folder elsewhere",
        f"{ONE} --format PNG --json",
        '"kept": 1',
        prepare=write("photos/cup/0.xml", XML.format(name="../../photos/bowl")),
        status=0,
        changes=MADE,
        would="write outside of the folder",
    ),
    fault(
        "a model file of the inpainter that is missing",
        f"{ONE} {BOX} --inpainter lama --set inpainter.model=gone.onnx",
        "gone.onnx: no such file",
    ),
    fault("an inpainter that is told no file", f"{ONE} {BOX} --inpainter lama", "--set inpainter.model="),
    fault(
        "a model file of the inpainter that is damaged",
        f"{ONE} {BOX} --inpainter lama --set inpainter.model=lama.onnx",
        "lama.onnx cannot be read as an ONNX file",
        prepare=write("lama.onnx", b"no graph"),
    ),
    fault(
        "an ONNX file that is no inpainter",
        f"{ONE} {BOX} --inpainter lama --set inpainter.model=model.onnx",
        "model.onnx: its inputs must be a picture (1, 3, height, width) and a hole",
    ),
    fault(
        "an inpainter that is a program, for scale-objects",
        f"{ONE} {BOX} --inpainter lama --set inpainter.model=lama.pt",
        "lama.pt is TorchScript, which is a program",
        "--trust",
        prepare=write("lama.pt", pickle.dumps(Command())),
        would="run any program",
    ),
    fault(
        "a folder of SAM that is missing",
        f"{ONE} {BOX} --segmenter sam --set segmenter.model=./gone",
        "./gone: no such folder of a model",
    ),
    *(
        fault(
            f"a folder of SAM {what}",
            f"{ONE} {BOX} --segmenter sam --set segmenter.model=sam",
            words,
            prepare=sam(change),
            would=would,
        )
        for what, words, change, would in (
            ("whose weights are a pickle", "no file named model.safetensors", pickled, "run a shell command"),
            (
                "that names code of its own",
                "auto_map",
                both(
                    edit("sam/config.json", lambda c: c.update(auto_map={"AutoModel": "evil.Model"})),
                    write("sam/evil.py", "import os\nos.system('touch executed')\n"),
                ),
                "import a module",
            ),
            (
                "that names weights elsewhere",
                "adapter_config.json names other weights",
                write("sam/adapter_config.json", '{"base_model_name_or_path": "evil/model"}'),
                "fetch weights",
            ),
        )
    ),
    fault(
        "a model of a hub without trust, for scale-objects",
        f"{ONE} {BOX} --inpainter lama --set inpainter.model=evil/model:lama.onnx",
        "--trust fetches it",
        would="fetch a stranger's file",
    ),
    fault(
        "a folder for photographs that holds something else",
        f"{ALL} --force".replace("new", "run.yaml"),
        "run.yaml",
    ),
    fault("a folder for photographs that is not empty", ALL.replace("new", "digits"), "digits is not empty"),
    fault(
        "a run of other settings that was killed",
        ALL,
        "set of other settings",
        "--force",
        prepare=killed(soft=3.0),
    ),
    fault(
        "a full disk for photographs",
        f"{ONE} {BOX} --crop --format PNG",
        "cannot write",
        largest=600,
        changes=MADE,
    ),
    fault("an engine that is not there", f"{ONE} {BOX} --engine spark", "spark", "local", status=2),
]
