"""Data sets that are damaged, incomplete or in the way."""

from __future__ import annotations

from faults.fault import Fault, cut, fault, remove, write

MEASURE = "evaluate model --data digits"

FAULTS: list[Fault] = [
    fault(
        "digits without their description",
        "data preview --from digits --out p.png",
        "digits",
        prepare=remove("digits/digits.json"),
    ),
    fault(
        "digits without their images",
        "data preview --from digits --out p.png",
        "digits",
        prepare=remove("digits/digits.safetensors"),
    ),
    fault(
        "digits cut short",
        "data preview --from digits --out p.png",
        "digits",
        prepare=cut("digits/digits.safetensors", 0.5),
    ),
    fault("a folder that holds digits already", "data digits --out digits --count 2", "digits", "--force"),
    fault("a folder that holds something else", "data digits --out photos --count 2", "photos"),
    *(
        fault(
            f"files of others in a folder that is forced, for {name}",
            f"{args} --force",
            "photos",
            status=0,  # what was there stays as it was
            changes=changes,
        )
        for name, args, changes in (
            ("digits", "data digits --out photos --count 2", ("photos/digits.*",)),
            ("scenes", "data scenes --out photos --count 10", ("photos/[0-9]", "photos/[0-9]/*")),
            (
                "objects",
                "data make-objects --out photos --train 1 --test 1",
                ("photos/*_dir*", "photos/classes.txt", "photos/objects.json"),
            ),
        )
    ),
    fault("a file in the place of a folder", "data digits --out run.yaml --count 2", "run.yaml"),
    fault("a folder of MNIST that is not there", "data digits --out new --count 2 --source gone", "gone"),
    fault("a folder of MNIST without MNIST", "data digits --out new --count 2 --source photos", "photos"),
    fault(
        "MNIST that is damaged",
        "data digits --out new --count 2 --source mnist",
        "mnist",
        prepare=lambda place: [
            write(f"mnist/MNIST/raw/{name}", b"\0\0\x08\x03 damaged")(place)
            for name in (
                "train-images-idx3-ubyte",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte",
            )
        ],
    ),
    fault("a preview that is a folder", "data preview --out photos", "photos"),
    fault("a preview in a folder that cannot be made", "data preview --out run.yaml/p.png", "run.yaml"),
    fault("more images than memory holds", "data digits --out new --count 100000000000", "count"),
    fault(
        "images larger than memory holds",
        "data digits --out new --count 2 --resolution 1000000",
        "resolution",
    ),
    fault(
        "scenes larger than memory holds",
        "data scenes --out new --count 10 --resolution 1000000",
        "resolution",
    ),
]
