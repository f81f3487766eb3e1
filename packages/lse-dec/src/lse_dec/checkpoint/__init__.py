"""Models on disk: weights as safetensors, everything else as readable, validated JSON."""

from __future__ import annotations

from lse_dec.checkpoint.folder import load, model_folder, save

__all__ = ["load", "model_folder", "save"]
