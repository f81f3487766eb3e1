"""A folder served to browsers on this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from lse_core.errors import LSEError

__all__ = ["serving"]

TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".wasm": "application/wasm",
    "": "application/octet-stream",
}


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = TYPES

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the folder may be written anew meanwhile
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Keep requests off the terminal."""


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve `folder` on 127.0.0.1 while the block runs; yields the address of its index.html.

    Args:
        folder: the files.
        port: 0 takes a free one.

    Raises:
        LSEError: the port is taken, or not allowed.
    """
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise LSEError(f"port {port} cannot be used ({error.strerror}): choose another by --port") from error
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
