"""Adapted models on the Hugging Face Hub: `push_to_hub`, `save_pretrained` and `from_pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelHubMixin, snapshot_download

from lse_core.errors import LSEError

if TYPE_CHECKING:
    from torch import nn

    from lse_dec.adaptation import AdaptedModel

__all__ = ["HubModel"]

CARD = """---
{{ card_data }}
---

An image model with canonicalizers that make it consistent under local scaling, written by lse-dec:

```python
import lse_dec

model = lse_dec.AdaptedModel.from_pretrained("OWNER/NAME")
```

`config.json` says which base model, which sites and which canonicalizers.
"""


class HubModel(
    ModelHubMixin,
    library_name="lse-dec",
    tags=["image-classification", "local-scaling"],
    model_card_template=CARD,
):
    """What an adapted model needs for the Hub; the files are those of `lse_dec.save`.

    `push_to_hub("owner/name")` and `save_pretrained(folder)` are huggingface_hub's own; both add a
    model card. A base that timm's name and usual keywords do not describe has to be passed to
    `from_pretrained` again, as to `lse_dec.load`.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        from lse_dec.checkpoint import save

        save(self, save_directory)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        model: nn.Module | None = None,
        trust: bool = False,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **_: Any,
    ) -> AdaptedModel:
        """Load a folder or a repository of the Hub; in eval mode, as `lse_dec.load`.

        Not the mixin's own, which would hand `config.json` to the constructor.

        Args:
            pretrained_model_name_or_path: a folder that exists, else "owner/name" on the Hub.
            model: the base, where the config cannot name it.
            trust: as `lse_dec.load` has it.
            revision: branch, tag or commit; None takes the main branch.
            cache_dir: where downloads are kept; None takes huggingface_hub's folder.
            force_download: download again what is there already.
            local_files_only: take what was downloaded before and do not ask the network.
            token: as huggingface_hub takes it.

        Raises:
            LSEError: the repository cannot be had.
            CheckpointError: as `lse_dec.load`.
        """
        from lse_dec.checkpoint import load
        from lse_dec.checkpoint.config import NAME
        from lse_dec.checkpoint.folder import WEIGHTS

        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            try:
                found = snapshot_download(
                    str(pretrained_model_name_or_path),
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=[NAME, WEIGHTS],
                )
            except (OSError, ValueError) as error:  # what huggingface_hub raises, offline and online
                first = " ".join(str(error).split())[:200]
                raise LSEError(
                    f"{str(pretrained_model_name_or_path)!r} is no folder here, and the Hub does not give "
                    f"it: {first}"
                ) from error
            folder = Path(found)
        found_model: AdaptedModel = load(folder, model, trust=trust)
        return found_model
