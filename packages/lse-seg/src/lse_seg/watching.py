"""What enters canonicalizers and what they answer, kept while a forward pass runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lse_dec.canonicalizers import Canonicalization
from lse_dec.sites import CanonicalizedStage

__all__ = ["Seen", "watching"]

Seen = dict[str, tuple[Tensor, Canonicalization]]
"""Features and answer by site."""


@contextmanager
def watching(sites: Mapping[str, CanonicalizedStage]) -> Iterator[Seen]:
    """Collect the features and the answer of each site's first call while the block runs."""
    seen: Seen = {}

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Tensor, ...], answer: Canonicalization) -> None:
            seen.setdefault(name, (args[0], answer))

        return keep

    handles = [site.canonicalizer.register_forward_hook(keeper(name)) for name, site in sites.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
