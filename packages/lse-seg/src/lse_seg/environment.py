"""Makes mmsegmentation importable in this process; imported before anything that imports it."""

from __future__ import annotations

from lse_seg import placeholder
from lse_seg_plugin.installation import check

if check().compiled is None:
    placeholder.install()
