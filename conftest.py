"""What all tests share: processes that tests start by "forkserver" are forks of one with these imports done.

Importing torch takes longer than most of what such a process is to do. mmsegmentation is not among them, for
tests look at what imports it.
"""

import multiprocessing

multiprocessing.set_forkserver_preload(
    [
        "lse_core.cli",
        "lse_core.metrics",
        "lse_data.digits",
        "lse_dec",
        "lse_dec.canonicalizers",
        "lse_dec.backbones",
        "lse_export.quantize",
        "lse_train.recipes",
        "lse_train.running",
        "lightning_fabric",
        "sklearn.datasets",
        "torch.distributed",
        "torch.onnx",
        "torch.utils.tensorboard",
    ]
)
