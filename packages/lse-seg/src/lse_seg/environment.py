"""Makes mmsegmentation work in this process. Import this module before mmsegmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from numpy.dtypes import Float32DType, Float64DType, Int32DType, Int64DType

from lse_core.errors import LSEError
from lse_seg import placeholder
from lse_seg_plugin.installation import check

__all__ = ["allow_checkpoints"]


def allow_checkpoints() -> None:
    """Let `torch.load` read mmengine's checkpoints without running code that is in them.

    They hold mmengine's log: buffers with numpy arrays, and references to the buffers' methods, which
    pickle writes as a call of getattr. Those are vouched for, getattr on anything else is not.
    """
    # numpy's functions that make arrays and scalars have moved between its versions
    made_by: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    numpy_types = [np.ndarray, np.dtype, Float32DType, Float64DType, Int32DType, Int64DType, *made_by]
    getattrs = [(_method, "builtins.getattr"), (_method, "__builtin__.getattr")]
    torch.serialization.add_safe_globals([HistoryBuffer, *numpy_types, *getattrs])


def _method(owner: Any, name: str) -> Any:
    if owner is not HistoryBuffer or name.startswith("_"):
        raise LSEError(
            f"the checkpoint asks for attribute {name!r} of {owner!r}, so mmengine did not write it"
        )
    return getattr(HistoryBuffer, name)


if check().compiled is None:
    placeholder.install()
allow_checkpoints()
