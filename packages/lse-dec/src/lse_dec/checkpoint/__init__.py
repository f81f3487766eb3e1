"""Adapted models on disk: weights as safetensors, everything else as readable, validated JSON."""

from __future__ import annotations

from lse_dec.checkpoint.folder import load, save

__all__ = ["load", "save"]
