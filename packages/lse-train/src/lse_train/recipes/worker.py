"""A run of a recipe as a process: `python -m lse_train.recipes.worker`, told what to do on stdin."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from lse_core.errors import LSEError
from lse_core.process import keep_memory


def main() -> None:
    """Run the cell that one line of JSON describes; end when nobody holds the other end of stdin."""
    task = json.loads(sys.stdin.readline())

    def leave_with_parent() -> None:
        sys.stdin.read()
        os._exit(1)

    keep_memory()
    threading.Thread(target=leave_with_parent, daemon=True).start()
    from lse_train.config import RunConfig
    from lse_train.recipes.runner import run_cell

    try:
        run_cell(RunConfig.parse(task["config"]), Path(task["folder"]), task["measures"], trust=task["trust"])
    except LSEError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
