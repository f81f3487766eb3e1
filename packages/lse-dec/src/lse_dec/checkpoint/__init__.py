"""Models on disk: weights as safetensors, everything else as readable, validated JSON."""

from __future__ import annotations

from lse_dec.checkpoint.loading import load, model_folder
from lse_dec.checkpoint.saving import save

__all__ = ["load", "model_folder", "save"]
