"""Trains a segmentor of mmsegmentation in the current folder, or goes on with it: a long command."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from lse_core.atomic import replacing
from lse_core.cli import main as lse
from lse_seg.running import load_config, make_runner, set_data

OUT = Path("seg")
STEPS = 8


def main() -> None:
    """Eight steps with a checkpoint after every second, on eight images."""
    torch.set_num_threads(1)
    if not Path("objects/objects.json").exists():
        made = (
            "data make-objects --out objects --train 8 --val 1 --test 1 --size 64 --families shapes --force"
        )
        lse(made.split(), standalone_mode=False)
    config = load_config("segformer_dec", {"train_cfg.max_iters": STEPS, "train_cfg.val_interval": STEPS})
    set_data(config, "objects")
    config.train_dataloader.batch_size = 2
    config.default_hooks.checkpoint.interval = 2
    config.default_hooks.logger.interval = 1
    config.param_scheduler[0].end = config.param_scheduler[1].begin = 1
    runner = make_runner(config, OUT, resume=True)
    runner.train()
    with replacing(OUT / "weights.safetensors", overwrite=True) as partial:
        partial.write_bytes(save({k: v.contiguous() for k, v in runner.model.state_dict().items()}))


if __name__ == "__main__":
    main()
