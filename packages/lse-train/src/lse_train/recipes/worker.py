"""A run of a recipe as a process: `python -m lse_train.recipes.worker`, told what to do on stdin."""

from __future__ import annotations

import json
import os
import sys
import threading

from lse_core.errors import LSEError
from lse_train.cpu import keep_memory


def main() -> None:
    """Do the run that one line of JSON describes; end when nobody holds the other end of stdin."""
    task = json.loads(sys.stdin.readline())

    def leave_with_parent() -> None:
        sys.stdin.read()
        os._exit(1)

    keep_memory()
    threading.Thread(target=leave_with_parent, daemon=True).start()
    from lse_train.recipes.execution import run_one
    from lse_train.recipes.plan import Work

    try:
        trust = task.pop("trust")
        run_one(Work.of(**task), trust=trust)
    except LSEError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
