"""Runs and recipes: YAML that is wrong, folders of runs that are damaged or belong to another run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults.fault import Fault, both, cut, edit, fault, remove, write

TRAIN = "train run.yaml --out new"
AGAIN = "train run.yaml --out run"


def line(old: str, new: str, path: str = "run.yaml") -> Callable[[Path], None]:
    def run(place: Path) -> None:
        text = (place / path).read_text(encoding="utf-8")
        assert old in text
        (place / path).write_text(text.replace(old, new), encoding="utf-8")

    return run


def unfinished(place: Path) -> None:
    """The run as it was when it was killed before its end: no result, a state that is damaged."""
    (place / "run" / "result.json").unlink()
    (place / "run" / "state.pt").write_bytes(b"PK\x03\x04 no state")


YAML: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "an empty file": (write("run.yaml", ""), ("run.yaml",)),
    "a list": (write("run.yaml", "- a\n- b\n"), ("run.yaml",)),
    "a text": (write("run.yaml", "just words"), ("run.yaml",)),
    "no YAML": (write("run.yaml", "model: [unclosed"), ("run.yaml",)),
    "a tab": (write("run.yaml", "model:\n\tname: x"), ("run.yaml",)),
    "bytes that are no text": (write("run.yaml", b"\xff\xfe\x00\x01"), ("run.yaml",)),
    "a tag that calls Python": (
        write("run.yaml", "model: !!python/object/apply:os.system ['true']"),
        ("run.yaml",),
    ),
    "aliases that multiply": (
        write(
            "run.yaml",
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
            ),
        ),
        ("run.yaml",),
    ),
    "nesting of ten thousand": (write("run.yaml", "[" * 10_000), ("run.yaml",)),
    "no model": (line("model: {name: resnet10t,", "modl: {name: resnet10t,"), ("model", "missing")),
    "no data": (write("run.yaml", "model: resnet10t\nsteps: 2\n"), ("data",)),
    "a model that does not exist": (line("resnet10t", "resnet10x"), ("resnet10x",)),
    "a data set that does not exist": (line("image_folder", "imagefolder"), ("imagefolder", "image_folder")),
    "a setting that does not exist": (line("batch_size", "batchsize"), ("batchsize", "batch_size")),
    "steps that are a word": (line("steps: 2", "steps: many"), ("steps", "many")),
    "no steps": (line("steps: 2", "steps: 0"), ("steps",)),
    "steps and epochs": (line("steps: 2", "steps: 2\nepochs: 1"), ("steps", "epochs")),
    "neither steps nor epochs": (line("steps: 2\n", ""), ("steps", "epochs")),
    "a negative rate": (line("device: cpu", "device: cpu\noptim: {lr: -1}"), ("lr",)),
    "a rate that is not finite": (line("device: cpu", "device: cpu\noptim: {lr: .nan}"), ("lr",)),
    "a seed that is negative": (line("device: cpu", "device: cpu\nseed: -1"), ("seed",)),
    "a device that does not exist": (line("device: cpu", "device: tpu"), ("tpu",)),
    "a precision that does not exist": (line("device: cpu", "device: cpu\nprecision: float7"), ("float7",)),
    "a method that does not exist": (line("device: cpu", "device: cpu\nmethod: augll"), ("augll", "augl")),
    "a site that does not exist": (line("sites: [image]", "sites: [layer9]"), ("layer9",)),
    "a canonicalizer's setting that does not exist": (line("segments: 3", "segmnts: 3"), ("segmnts",)),
    "a canonicalizer's setting of the wrong type": (line("segments: 3", "segments: [3]"), ("segments",)),
    "images of a size that the model cannot take": (line("resolution: 32", "resolution: 1"), ("1",)),
    "fewer classes than labels": (line("num_classes: 2", "num_classes: 1"), ("labels", "classes")),
    "a run to begin from that is missing": (
        line("stem_width: 4}", "stem_width: 4}, initial: gone"),
        ("gone",),
    ),
    "a phase that trains nothing there is": (
        line("device: cpu", "device: cpu\noptim: {phases: [{train: both}, {train: everything}]}"),
        ("everything",),
    ),
}

RECIPE: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no axes": (line("axes:", "axis:", "recipe.yaml"), ("axes", "missing")),
    "an axis without options": (line("model: {small: {}}", "model: {}", "recipe.yaml"), ("axes",)),
    "a report of an axis that is missing": (
        line("rows: rule", "rows: ruel", "recipe.yaml"),
        ("ruel", "rule"),
    ),
    "a preset that does not exist": (
        line(
            "residual: {adapt.sites: [image], adapt.rule: residual}",
            "residual: {preset: decc}",
            "recipe.yaml",
        ),
        ("decc", "dec"),
    ),
    "a setting that does not exist": (line("adapt.rule", "adpt.rule", "recipe.yaml"), ("adpt",)),
    "a name that leads out of the folder": (
        line("table: small", "table: ../small", "recipe.yaml"),
        ("table",),
    ),
    "a base that is missing": (
        line("table: small", "base: gone.yaml\ntable: small", "recipe.yaml"),
        ("gone.yaml",),
    ),
    "a base that is itself": (
        line("table: small", "base: recipe.yaml\ntable: small", "recipe.yaml"),
        ("recipe.yaml",),
    ),
}

FAULTS: list[Fault] = [
    *(fault(f"a run: {what}", TRAIN, *words, prepare=damage) for what, (damage, words) in YAML.items()),
    *(
        fault(f"a recipe: {what}", "train recipe.yaml --out new", *words, prepare=damage)
        for what, (damage, words) in RECIPE.items()
    ),
    fault("a run: no such file", "train gone.yaml", "gone.yaml"),
    fault("a folder that holds another run", "train run.yaml --out run --set steps=3", "steps", "--fresh"),
    fault("a result that is damaged", AGAIN, "result.json", "--fresh", prepare=cut("run/result.json", 0.5)),
    fault("a result that is a list", AGAIN, "result.json", "--fresh", prepare=write("run/result.json", "[]")),
    fault(
        "a result without metrics",
        AGAIN,
        "result.json",
        prepare=edit("run/result.json", lambda v: v.pop("metrics") and None),
    ),
    fault("settings that are damaged", AGAIN, "settings.json", prepare=cut("run/settings.json", 0.5)),
    fault("a state that is damaged", AGAIN, "state.pt", "--fresh", prepare=unfinished),
    fault(
        "a log that is damaged",
        AGAIN,
        prepare=both(remove("run/result.json"), write("run/metrics.csv", b"\xff\xfe")),
        status=0,  # a run without a state begins anew, and its log with it
        changes=("run", "run/*"),
    ),
    fault("a file in the place of the run's folder", "train run.yaml --out recipe.yaml", "recipe.yaml"),
    fault("results of another recipe's settings to reuse", "train recipe.yaml --out new --reuse run", "run"),
]
