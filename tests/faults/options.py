"""Command lines that ask for what does not exist, is out of range, or does not go together."""

from __future__ import annotations

from faults.fault import Fault, fault

FAULTS: list[Fault] = [
    fault("a command that is misspelt", "trian run.yaml", "unknown command 'trian'", "'train'", status=2),
    fault("a command that nothing is like", "frobnicate", "unknown command 'frobnicate'", status=2),
    fault("a subcommand that is misspelt", "export onx model", "onx", status=2),
    fault(
        "an option that does not exist", "predict model.onnx photos/cup --topp 3", "--topp", "--top", status=2
    ),
    fault("a model that is missing", "predict", "missing argument", "MODEL", status=2),
    fault(
        "an option without its value", "predict model.onnx photos/cup --top", "--top", "requires", status=2
    ),
    *(
        fault(f"a number out of range: {args}", args, words, status=2)
        for args, words in {
            "predict model.onnx photos/cup --top 0": "--top",
            "adapt resnet18 --list --steps 0": "--steps",
            "adapt plain --out new --size 4 4": "--size",
            "look model photos/cup/0.png --out look.png --size 2": "--size",
            "evaluate model --data digits --batch-size 0": "--batch-size",
            "warp photos/cup/0.png --out w --segments 0": "--segments",
            "warp photos/cup/0.png --out w --ratio 1": "--ratio",
            "warp photos/cup/0.png --out w --strength 2": "--strength",
            "warp photos/cup/0.png --out w --frames 1": "--frames",
            "warp photos/cup/0.png --out w --seed 99999999999999999999999": "--seed",
            "warp photos/cup/0.png --out w --seed -1": "--seed",
            "demo --out new --seed -1": "--seed",
            "demo --out new --seed 99999999999999999999999": "--seed",
            "data preview --out p.png --rows 0": "--rows",
            "export onnx model --out new.onnx --batch 0": "--batch",
            "export verify model.onnx model --batch-sizes 0": "--batch-sizes",
            "export triton model.onnx repo --version 0": "--version",
            "export triton model.onnx repo --instances 0": "--instances",
            "bench model --rounds 1": "--rounds",
            "bench model --batch 0": "--batch",
            "train recipe.yaml --out new --seeds 0": "--seeds",
        }.items()
    ),
    *(
        fault(f"a value of the wrong type: {args}", args, words, "integer", status=2)
        for args, words in {
            "predict model.onnx photos/cup --top three": "three",
            "adapt plain --out new --steps 2.5": "2.5",
            "data digits --out new --count many": "many",
            "warp photos/cup/0.png --out w --seed one": "one",
        }.items()
    ),
    fault("a ratio that is no number", "warp photos/cup/0.png --out w --ratio nan", "ratio", "nan"),
    fault("a mode that does not exist", "adapt plain --out new --mode upside-down", "upside-down", status=2),
    fault(
        "a timm model that does not exist", "adapt resnet1888 --out new", "'resnet1888'", "resnet18", "list"
    ),
    fault("a timm model that nothing is like", "adapt qqqqqq --out new", "'qqqqqq'", "list"),
    fault("a stage that the model lacks", "adapt plain --site layer9 --out new", "'layer9'", "layer"),
    fault("a stage named twice", "adapt plain --site layer1 --site layer1 --out new", "once"),
    fault(
        "a canonicalizer that does not exist", "adapt plain --canonicalizer decc --out new", "'decc'", "'dec'"
    ),
    fault("a rule that does not exist", "adapt plain --rule residul --out new", "'residul'", "'residual'"),
    fault(
        "a solver that does not exist", "adapt plain --solver andersen --out new", "'andersen'", "'anderson'"
    ),
    fault(
        "a setting that does not exist", "adapt plain --set segmnts=4 --out new", "'segmnts'", "'segments'"
    ),
    fault(
        "a setting without a value",
        "adapt plain --set segments --out new",
        "segments",
        "name=value",
        status=2,
    ),
    fault("a number that is a word", "adapt plain --set ratio=abc --out new", "ratio", "abc"),
    fault("a whole number that is a word", "adapt plain --set segments=five --out new", "segments", "five"),
    fault("a number that is a list", "adapt plain --set ratio=[1,2] --out new", "ratio"),
    fault("a list that is a number", "adapt plain --set widths=4 --out new", "widths"),
    fault("a ratio out of range", "adapt plain --set ratio=9 --out new", "ratio", "9"),
    fault("a ratio that is not finite", "adapt plain --set ratio=.inf --out new", "ratio"),
    fault("one segment alone", "adapt plain --set segments=1 --out new", "segments"),
    fault("a negative resolution", "adapt plain --set resolution=-1 --out new", "resolution", "-1"),
    fault(
        "steps for what does not iterate", "adapt plain --canonicalizer canon --steps 9 --out new", "steps"
    ),
    fault(
        "grids for what knows none",
        "adapt plain --canonicalizer canon --warp grid --out new",
        "canon",
        "warp",
    ),
    fault("a warp family that does not exist", "adapt plain --warp seperable --out new", "separable"),
    fault("no place to write to", "adapt plain", "--out", status=2),
    fault("an adapted model to adapt", "adapt model --out new", "adapted"),
    fault(
        "a model keyword that reads files",
        "adapt resnet18 --model-set checkpoint_path=x.pth --out new",
        "another file",
    ),
    fault(
        "a model keyword that does not exist",
        "adapt resnet18 --model-set nm_classes=2 --out new",
        "num_classes",
    ),
    fault("means of the wrong number", "adapt plain --mean 0.5 --mean 0.5 --out new", "mean", "3"),
    fault("a standard deviation of zero", "adapt plain --std 0 --out new", "std"),
    fault("class names of the wrong number", "adapt plain --class-names run.yaml --out new", "class", "2"),
    fault("class names that are no file", "adapt plain --class-names none.txt --out new", "none.txt"),
    fault("a mean of the wrong number", "predict model.onnx photos/cup --mean 0.5 --mean 0.5", "mean", "3"),
    fault("a mean that is not finite", "predict model.onnx photos/cup --mean nan", "mean"),
    fault("a provider that does not exist", "predict model.onnx photos/cup --provider tpu", "tpu", "cpu"),
    fault("a provider that is not here", "predict model.onnx photos/cup --provider cuda", "cuda"),
    fault("a provider for a folder", "predict model photos/cup --provider cuda", "provider"),
    fault("a device that does not exist", "demo --device tpu9 --out new", "tpu9", "cpu"),
    fault("a device that is not here", "demo --device cuda:7 --out new", "cuda:7", "cpu"),
    fault("a device for measuring that is not here", "evaluate run --device cuda:7", "cuda:7", "cpu"),
    fault("a bracket upside down", "evaluate run --trust --bracket 2 1", "bracket"),
    fault("a warp ratio below 1", "evaluate run --trust --warp-ratio 0.5", "ratio", "0.5"),
    fault(
        "a precision that does not exist",
        "export onnx model --out new.onnx --precision float7",
        "float7",
        "float16",
    ),
    fault("int8 without pictures", "export onnx model --out new.onnx --precision int8", "calibration"),
    fault(
        "pictures without int8",
        "export onnx model --out new.onnx --calibration photos",
        "calibration",
        "int8",
    ),
    fault("half outputs of float32", "export onnx model --out new.onnx --half-io", "half", "float16"),
    fault("steps below 1", "export onnx model --out new.onnx --steps 0", "steps", status=2),
    fault(
        "a layout that does not exist",
        "export onnx model --out n.onnx --preprocess 32 32 --picture-layout hwc",
        "hwc",
    ),
    fault(
        "a target that does not exist",
        "export check model.onnx --target tensorrt12",
        "tensorrt12",
        "tensorrt11",
    ),
    fault(
        "a flavour that does not exist", "export tensorrt model.onnx --out e.plan --flavour gtx", "gtx", "rtx"
    ),
    fault(
        "TensorRT where it is not",
        "export tensorrt model.onnx --out e.plan",
        "pip install 'lse-export[tensorrt]'",
    ),
    fault(
        "a compute capability of no GPU",
        "export tensorrt model.onnx --out e.plan --flavour rtx --compute-capability 1.0",
        "1.0",
    ),
    fault(
        "an axis upside down",
        "export tensorrt model.onnx --out e.plan --flavour rtx --axis batch=8:4:1",
        "batch",
    ),
    fault(
        "an axis that the file lacks",
        "export tensorrt model.onnx --out e.plan --flavour rtx --axis depth=1:2:4",
        "depth",
    ),
    fault("a kind of instance that does not exist", "export triton model.onnx repo --kind tpu", "tpu", "cpu"),
    fault("a name that is a path", "export triton model.onnx repo --name ../evil", "name"),
    fault("a way of timing that does not exist", "bench model --ways quick", "quick", "eager"),
    fault(
        "a distribution that does not exist",
        "warp photos/cup/0.png --out w --distribution normal",
        "normal",
        "log_uniform",
    ),
    fault("a split that does not exist", "data digits --out new --split tset", "tset", "test"),
    fault("a scale upside down", "data digits --out new --scale 2 1 --count 2", "scale"),
    fault("a scale of zero", "data digits --out new --scale 0 1 --count 2", "scale"),
    fault("no images", "data digits --out new --count 0", "count"),
    fault("images of no size", "data digits --out new --count 2 --resolution 0", "resolution"),
    fault("digits that do not fit", "data digits --out new --count 2 --glyph-size 90", "glyph"),
    fault("a negative seed", "data digits --out new --count 2 --seed -1", "seed"),
    fault("factors that are words", "data make-objects --out new --test-factors a,b", "--test-factors"),
    fault(
        "a family that does not exist",
        "data make-objects --out new --families digits,shape",
        "'shape'",
        "'shapes'",
    ),
    fault("objects that leave no room", "data make-objects --out new --test-factors 1,9", "room"),
    fault("neither folder nor picture", "data make-objects", "--out", status=2),
    fault("a preview that is no PNG", "data make-objects --preview objects.txt", "PNG"),
    fault("scenes of a factor of zero", "data scenes --out new --count 10 --scales 0", "scale"),
    fault("scenes of words", "data scenes --out new --count 10 --scales big", "scales", "big"),
    fault("a picture beyond the end", "data preview --out p.png --from digits --start 99", "start"),
    fault("a preview of what is no data set", "data preview --out p.png --from model", "model"),
    fault(
        "a group that does not exist",
        "soften resnet10t --keep 0.5 --group rotations --out new",
        "'rotations'",
        "rotation",
    ),
    fault("a share above 1", "soften resnet10t --keep 2 --out new", "keep", "2"),
    fault("a data set that does not exist", "evaluate model --data digitss", "'digitss'", "'digits'"),
    fault("a data set without its folder", "evaluate model --data image_folder", "root"),
    fault(
        "a data set's keyword that does not exist",
        "evaluate model --data digits --set count=4 --set cuont=4",
        "'cuont'",
        "'count'",
    ),
    fault("a profile that does not exist", "train recipe.yaml --profile tpu", "tpu"),
    fault("a profile for one run", "train run.yaml --profile cpu", "recipes", status=2),
    fault("seeds for one run", "train run.yaml --seeds 3", "recipes", status=2),
    fault("a run's setting that does not exist", "train run.yaml --out new --set optim.rl=1", "'rl'", "lr"),
    fault("a run's setting of the wrong type", "train run.yaml --out new --set steps=many", "steps", "many"),
    fault("a run's setting without a value", "train run.yaml --out new --set steps", "steps", "="),
    fault("a run's setting that is no YAML", "train run.yaml --out new --set steps=[", "steps"),
]
