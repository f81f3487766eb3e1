"""Locally scaled objects with ground-truth masks in the spirit of section 5.1: `lse data make-objects`."""

from __future__ import annotations

from lse_data.objects.settings import FACTORS, FAMILIES, ObjectsConfig, class_names, palette
from lse_data.objects.write import DESCRIPTION, write_objects

__all__ = ["DESCRIPTION", "FACTORS", "FAMILIES", "ObjectsConfig", "class_names", "palette", "write_objects"]
