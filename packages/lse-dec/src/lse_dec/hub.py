"""Adapted models on the Hugging Face Hub: `push_to_hub`, `save_pretrained` and `from_pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin, snapshot_download
from torch import nn

from lse_core.errors import LSEError
from lse_core.plugins import registry

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
    model card.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        # not at the top: the package that it is in reads checkpoints too, which needs this module
        from lse_dec.checkpoint.saving import save

        save(self, save_directory)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        model: nn.Module | None = None,
        trust: bool = False,
        **download: Any,
    ) -> Self:
        """Load a folder or a repository of the Hub; in eval mode, as `lse_dec.load`.

        Args:
            pretrained_model_name_or_path: a folder that exists, else "owner/name" on the Hub.
            model: the base, where the config cannot name it, as for `lse_dec.load`.
            trust: as for `lse_dec.load`.
            download: keywords of `huggingface_hub.snapshot_download`, such as `revision`, `cache_dir`,
                `force_download`, `local_files_only` and `token`.

        Raises:
            LSEError: the repository cannot be had, or holds no model that LSE wrote.
            CheckpointError: as `lse_dec.load`.
        """
        name, folder = str(pretrained_model_name_or_path), Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            try:
                files = ["config.json", "model.safetensors"]
                folder = Path(snapshot_download(name, **download, allow_patterns=files))
            except (OSError, ValueError) as error:  # what huggingface_hub raises, offline and online
                first = " ".join(str(error).split())[:200]
                raise LSEError(
                    f"{name!r} is not a folder on this machine, and the Hub does not return it: {first}"
                ) from error
        # through the hook, because the loader makes adapted models, and so needs this module
        loaded: Self | None = registry().get("loader", "lse-dec")(folder, model=model, trust=trust)
        if loaded is None:
            raise LSEError(f"{folder} holds no model that lse_dec.save wrote: config.json is missing")
        return loaded
