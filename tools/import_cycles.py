"""Import cycles between files of our packages, and imports across packages that hide in a string.

`make lint` runs it. Imports inside functions and under TYPE_CHECKING count. Exit status 1 and one line for
each fault; 0 and one line where there is none.

Example:
  python tools/import_cycles.py
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import grimp

PACKAGES = (
    "lse_core",
    "lse_data",
    "lse_dec",
    "lse_train",
    "lse_seg",
    "lse_seg_plugin",
    "lse_export",
    "lse_soft",
)


def cycles(graph: grimp.ImportGraph) -> Iterator[list[str]]:
    """One closed path of imports for each group of modules that all import one another in the end."""
    seen: set[str] = set()
    for module in sorted(graph.modules):
        group = graph.find_upstream_modules(module) & graph.find_downstream_modules(module)
        if group and module not in seen:
            seen |= group
            imported = sorted(graph.find_modules_directly_imported_by(module) & group)
            ways_back = [graph.find_shortest_chain(other, module) or () for other in imported]
            yield [module, *min(ways_back, key=len)]


def hidden(package: str) -> Iterator[str]:
    """Calls such as `import_module("lse_dec.adaptation")` that name another package of ours."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                    continue
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                named = str(node.args[0].value).partition(".")[0]
                if called in ("import_module", "__import__") and named in PACKAGES and named != package:
                    yield f"{file}:{node.lineno}: imports {node.args[0].value} by a string; use `import`"


def main() -> int:
    """Print the faults; the number of the exit status."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    faults = [f"import cycle: {' -> '.join(path)}" for path in cycles(graph)]
    faults += [fault for package in PACKAGES for fault in hidden(package)]
    print("\n".join(faults) or f"no import cycle among {len(graph.modules)} files")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
