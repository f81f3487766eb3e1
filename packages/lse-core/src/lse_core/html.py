"""Pages that are one file: templates with all text escaped, and figures and pictures inside of the page.

Needs the extra: `pip install lse-core[report]`.
"""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lse_core.errors import LSEError

try:
    import matplotlib
    from jinja2 import Environment, StrictUndefined
except ImportError as error:  # pragma: no cover - exercised by the wheel test
    raise LSEError("pages need jinja2 and matplotlib: pip install 'lse-core[report]'") from error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["data_uri", "embedded", "rendered"]


def rendered(package: str, name: str, **values: Any) -> str:
    """The Jinja template `name` beside the modules of `package`, filled in; a value that is missing raises.

    All text is escaped for HTML.
    """
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(text).render(**values)


def data_uri(content: bytes, mime: str) -> str:
    """A file's content as an address that needs no file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def embedded(figure: Figure, kind: str = "svg") -> str:
    """A figure as a data URI; curves as "svg", pictures as "png"."""
    buffer = io.BytesIO()
    # no date: the same run gives the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "lse"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=110, bbox_inches="tight")
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return data_uri(buffer.getvalue(), mime)
