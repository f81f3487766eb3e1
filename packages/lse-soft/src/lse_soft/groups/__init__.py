"""Groups, each in a file of its own; others are registered through the hook `lse_groups`."""

from __future__ import annotations

from lse_soft.groups.base import Group, make_group
from lse_soft.groups.cyclic import Cyclic
from lse_soft.groups.local_scale import LocalScale
from lse_soft.groups.rigid import Rigid
from lse_soft.groups.rotation import Rotation
from lse_soft.groups.translation import Translation
from lse_soft.groups.vectors import SO3, Lorentz

__all__ = [
    "SO3",
    "Cyclic",
    "Group",
    "LocalScale",
    "Lorentz",
    "Rigid",
    "Rotation",
    "Translation",
    "make_group",
]
