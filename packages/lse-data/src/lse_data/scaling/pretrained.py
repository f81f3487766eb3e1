"""Grounding DINO and SAM of Hugging Face's transformers, as the paper has them (section 5.3, steps a and b).

Needs the extra: `pip install 'lse-data[objects]'`. transformers is imported when a stage is made, not before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lse_core.errors import DataError, LSEError
from lse_data.fields import Count, Share
from lse_data.masks import Mark
from lse_data.scaling.stages import Box, Mask, Picture, Shot

__all__ = ["GroundingDino", "Sam"]

REFUSED = ("auto_map", "quantization_config", "use_pretrained_backbone", "use_timm_backbone")
"""Entries of a config that would import a folder's code, or fetch other weights than the folder's."""


class GroundingDino:
    """Grounding DINO (Liu and others 2024): boxes of what a text names.

    Args:
        model: a folder as `save_pretrained` writes it, or a name on Hugging Face's hub, such as
            "IDEA-Research/grounding-dino-tiny", taken from this machine's cache, and fetched with trust.
        prompt: what to look for, in English, several things with "." between them. By default the name of the
            folder in which a picture lies, as the paper takes the labels of ImageNet.
        words: a text file whose lines give a folder's name and its words, "n01440764 tench, Tinca tinca", as
            ImageNet's LOC_synset_mapping.txt does; the words before the first comma are looked for.
        threshold: boxes of a lower score in [0, 1] do not count.
        text_threshold: words of a lower score in [0, 1] do not belong to a box's name.
        overlap: of two boxes whose intersection over union is larger, that of the lower score does not count.
        most: objects in a picture, those of the highest scores.
        trust: fetch the model if it is not on this machine.
        device: where it runs.

    Raises:
        LSEError: transformers is not installed, or the model cannot be loaded.
    """

    def __init__(
        self,
        model: str = "",
        prompt: str = "",
        words: str | None = None,
        threshold: Share = 0.35,
        text_threshold: Share = 0.25,
        overlap: Share = 0.7,
        most: Count = 1,
        trust: bool = False,
        device: str = "cpu",
    ) -> None:
        classes = {"grounding-dino": ("GroundingDinoForObjectDetection", "GroundingDinoProcessor")}
        hint = "IDEA-Research/grounding-dino-tiny"
        self.model, self.processor, self.told = _load("detector", model, hint, classes, trust, device)
        self.prompt, self.device = prompt, device
        self.words = {} if words is None else _words(Path(words))
        self.threshold, self.text_threshold, self.overlap = threshold, text_threshold, overlap
        self.most = most

    def __call__(self, shot: Shot) -> Sequence[Mark]:
        """The objects of the prompt, that of the highest score first.

        Raises:
            DataError: there is no prompt and no folder's name, or the model does not know a word of it.
        """
        import torch
        from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

        things = self._things(shot)
        text = "".join(f"{thing}. " for thing in things).strip()
        inputs = self.processor(images=np.array(shot.picture), text=text, return_tensors="pt").to(self.device)
        if (inputs.input_ids == self.processor.tokenizer.unk_token_id).any():
            raise DataError(f"the model's vocabulary has no word for a part of {text!r}")
        with torch.inference_mode():
            outputs = self.model(**inputs)
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs,
            inputs.input_ids,
            threshold=self.threshold,
            text_threshold=self.text_threshold,
            target_sizes=[shot.picture.shape[:2]],
        )
        height, width = shot.picture.shape[:2]
        boxes, scores = (
            clip_boxes_to_image(found["boxes"].float().cpu(), (height, width)),
            found["scores"].cpu(),
        )
        large = remove_small_boxes(boxes, 1.0)  # pixels
        kept = large[nms(boxes[large], scores[large].float(), self.overlap)][: self.most].tolist()
        names = things * len(boxes) if len(things) == 1 else found["text_labels"]
        return [
            Mark(box=_box(boxes[i].tolist()), name=names[i].strip() or None, size=(width, height))
            for i in kept
        ]

    def versions(self) -> Mapping[str, str]:
        """What decides the boxes beside the settings, by name."""
        words = "" if not self.words else hashlib.sha256(json.dumps(self.words).encode()).hexdigest()[:16]
        return {**self.told(), **({"words": words} if words else {})}

    def _things(self, shot: Shot) -> list[str]:
        label = self.words.get(shot.label, shot.label.replace("_", " "))
        things = [thing.strip().lower() for thing in (self.prompt or label).split(".")]
        found = [thing for thing in things if thing]
        if not found:
            raise DataError(
                "the picture lies in no folder that says what to look for: put it into one that is called "
                "after the object, or give --set detector.prompt=TEXT"
            )
        return found


class Sam:
    """SAM or SAM 2 (Kirillov and others 2023, Ravi and others 2024): the object in a box.

    Args:
        model: a folder as `save_pretrained` writes it, or a name on Hugging Face's hub, such as
            "facebook/sam-vit-base" or "facebook/sam2.1-hiera-small", taken from this machine's cache, and
            fetched with trust.
        trust: fetch the model if it is not on this machine.
        device: where it runs.

    Raises:
        LSEError: transformers is not installed, or the model cannot be loaded.
    """

    def __init__(self, model: str = "", trust: bool = False, device: str = "cpu") -> None:
        second = ("Sam2Model", "Sam2Processor")
        # checkpoints of SAM 2 are made for videos; their part for pictures is what is loaded
        classes = {"sam": ("SamModel", "SamProcessor"), "sam2": second, "sam2_video": second}
        self.model, self.processor, self.told = _load(
            "segmenter", model, "facebook/sam-vit-base", classes, trust, device
        )
        self.device = device

    def __call__(self, picture: Picture, boxes: Sequence[Box]) -> Sequence[Mask]:
        """One mask for each box, the one that SAM has for prompts that are not ambiguous."""
        import torch

        given = [[list(box) for box in boxes]]
        inputs = self.processor(images=np.array(picture), input_boxes=given, return_tensors="pt").to(
            self.device
        )
        sizes = [
            inputs.pop(name).cpu() for name in ("original_sizes", "reshaped_input_sizes") if name in inputs
        ]
        with torch.inference_mode():
            outputs = self.model(**inputs, multimask_output=False)
        (masks,) = self.processor.post_process_masks(outputs.pred_masks.float().cpu(), *sizes)
        return list(np.asarray(masks[:, 0]))

    def versions(self) -> Mapping[str, str]:
        """What decides the masks beside the settings, by name."""
        return self.told()


def _load(
    stage: str, name: str, hint: str, classes: Mapping[str, tuple[str, str]], trust: bool, device: str
) -> tuple[Any, Any, Any]:
    """A model in eval mode and float32, its processor, and a function that says their versions.

    The weights must be safetensors. Nothing that the folder holds is imported or unpickled, and nothing is
    fetched without trust.

    Args:
        stage: the setting's name begins with it ("detector").
        name: the folder or the name on the hub.
        hint: a name for an error.
        classes: of the model and its processor in transformers, by the "model_type" of the config.
        trust: fetch what is not on this machine.
        device: where it runs.

    Raises:
        LSEError: the model cannot be loaded.
    """
    if not name:
        raise LSEError(
            f"this {stage} needs a model: give --set {stage}.model=FOLDER, or a name on Hugging Face's hub "
            f"such as {hint}, which --trust fetches"
        )
    folder = Path(name)
    if not folder.is_dir() and (folder.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)):
        raise LSEError(f"{name}: no such folder of a model; --set {stage}.model takes a folder, or {hint}")
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise LSEError(f"this {stage} needs transformers: pip install 'lse-data[objects]'") from error
    given = {"local_files_only": folder.is_dir() or not trust}
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # errors are of one line, and it is below
    try:
        config, _ = transformers.PreTrainedConfig.get_config_dict(name, **given)
        kind = _checked(config, name, classes)
        model_class, processor_class = (getattr(transformers, each) for each in classes[kind])
        if folder.is_dir() and (folder / "adapter_config.json").exists():
            raise LSEError(
                f"{name}: adapter_config.json names other weights; merge them into the model first"
            )
        model, report = model_class.from_pretrained(
            name,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,  # the report names them
            output_loading_info=True,
            **given,
        )
        processor = processor_class.from_pretrained(name, trust_remote_code=False, **given)
    except LSEError:
        raise
    except Exception as error:  # damaged files raise whatever their reader stumbles over
        raise LSEError(_reason(error, name, stage, folder.is_dir(), trust)) from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    wrong = sorted({*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])})
    if wrong:
        raise LSEError(
            f"{name}: the weights lack {len(wrong)} of the model's tensors, or have them in other shapes: "
            f"{wrong[0]}, for instance"
        )
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and len(tokenizer) <= len(tokenizer.all_special_ids):
        raise LSEError(f"{name}: the vocabulary is missing; save the processor there with save_pretrained")

    def versions() -> dict[str, str]:
        return {"transformers": transformers.__version__, "model": _digest(model)}

    return model.eval().to(device), processor, versions


def _checked(config: Mapping[str, Any], name: str, classes: Mapping[str, Any]) -> str:
    kind = config.get("model_type")
    if kind not in classes:
        raise LSEError(
            f"{name}: config.json is of a model of type {kind!r}; what is read here is {' or '.join(classes)}"
        )
    for key, value in _entries(config):
        if (key in REFUSED and value) or (key == "model_type" and str(value).startswith("timm")):
            raise LSEError(
                f"{name}: config.json says {key} = {str(value)[:60]!r}, which would import or fetch what is "
                "not in it; save the whole model with save_pretrained"
            )
    return str(kind)


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    """All keys of a JSON value with their values, however deep."""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        yield str(key), value
        yield from _entries(value)


def _reason(error: Exception, name: str, stage: str, local: bool, trust: bool) -> str:
    told = " ".join(str(error).split())
    if local or not isinstance(error, OSError | ValueError):
        return f"{name}: the model cannot be loaded: {type(error).__name__}: {told[:200]}"
    if not trust:
        return (
            f"{name} is no folder, and not in Hugging Face's cache on this machine: give --set {stage}.model="
            "FOLDER, or --trust to fetch it"
        )
    return f"{name} could not be fetched, nor found on this machine; is there a network? {told[:200]}"


def _digest(model: Any) -> str:
    """The first 16 hexadecimal digits of a hash of all weights."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def _words(file: Path) -> dict[str, str]:
    try:
        lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of folders and their words: {error}") from error
    wrong = [number for number, line in enumerate(lines, 1) if len(line) == 1]
    if wrong:
        raise DataError(f"{file}: line {wrong[0]} must be a folder's name, a space, and its words")
    return {line[0]: line[1].split(",")[0].strip() for line in lines if line}


def _box(sides: Sequence[float]) -> Box:
    left, top, right, bottom = sides
    return left, top, right, bottom
