"""Installed plugins: entry points of the group "lse", and the variable that allows or blocks them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

GROUP = "lse"
CORE = "lse-core"


@dataclass(frozen=True)
class Candidate:
    """One entry point of group "lse"; `entry_point` is None where `error` says why it cannot be read."""

    name: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint | None
    error: str = ""


def candidates() -> list[Candidate]:
    """Find every entry point of group "lse" on `sys.path`, without importing any; lse-core comes first.

    Of two copies of one distribution the first on the path counts, as it does for imports. Walks the
    distributions itself because `importlib.metadata.entry_points` fails as a whole on one bad file.
    """
    found: list[Candidate] = []
    distributions: set[str] = set()
    for dist in metadata.distributions():
        text = _read(dist)
        if f"[{GROUP}]" not in text:
            continue
        distribution, version = _identity(dist)
        if normalize(distribution) in distributions:
            continue
        distributions.add(normalize(distribution))
        found.extend(_of_distribution(dist, distribution, version))
    found.sort(key=lambda c: (normalize(c.distribution) != CORE, normalize(c.distribution), c.name))
    return list(_uniquely_named(found))


def _read(dist: metadata.Distribution) -> str:
    try:
        return dist.read_text("entry_points.txt") or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _identity(dist: metadata.Distribution) -> tuple[str, str]:
    try:
        return dist.metadata["Name"] or "unknown", dist.metadata["Version"] or "unknown"
    except Exception:  # half-removed distributions have entry points but no metadata
        return "unknown", "unknown"


def _of_distribution(dist: metadata.Distribution, name: str, version: str) -> Iterator[Candidate]:
    try:
        points = {point.name: point for point in dist.entry_points if point.group == GROUP}
    except Exception as error:  # a malformed entry_points.txt
        yield Candidate(name, name, version, None, f"entry_points.txt cannot be read: {one_line(error)}")
        return
    for point in points.values():
        yield Candidate(point.name, name, version, point)


def _uniquely_named(found: list[Candidate]) -> Iterator[Candidate]:
    """Prefix an entry point's name with its distribution where an earlier one has that name."""
    taken: set[str] = set()
    for c in found:
        name = f"{c.distribution}:{c.name}" if c.name in taken else c.name
        taken.add(name)
        yield Candidate(name, c.distribution, c.version, c.entry_point, c.error)


class Selection:
    """The plugins that `LSE_PLUGINS` lets load.

    A comma-separated list of plugin or distribution names: plain names allow only these, names with a
    leading "-" block. lse-core needs no mention: only "-core" blocks it, for without it there would be no
    `lse plugins` to show what is blocked. Unset or empty allows all.
    """

    def __init__(self, text: str) -> None:
        words = [word.strip() for word in text.split(",") if word.strip()]
        self._blocked = {normalize(word[1:]) for word in words if word.startswith("-")}
        self._allowed = {normalize(word) for word in words if not word.startswith("-")}

    def permits(self, candidate: Candidate) -> bool:
        """Say whether `candidate` may be imported."""
        names = _names(candidate)
        if names & self._blocked:
            return False
        return not self._allowed or bool(names & self._allowed) or CORE in names

    def unmatched(self, found: list[Candidate]) -> list[str]:
        """Names in `LSE_PLUGINS` that belong to no installed plugin, probably because they are misspelt."""
        known = set().union(*map(_names, found))
        return sorted((self._blocked | self._allowed) - known)


def is_strict(environ: Mapping[str, str]) -> bool:
    """Say whether `LSE_PLUGINS_STRICT` asks for an error instead of a warning."""
    return environ.get("LSE_PLUGINS_STRICT", "").strip().lower() not in ("", "0", "false", "no")


def normalize(name: str) -> str:
    """Spell a distribution's or plugin's name in the registries' normal form: lse_dec is lse-dec."""
    return re.sub(r"[-_.]+", "-", name).lower()


def one_line(error: BaseException) -> str:
    """Render an exception as one line: its type and what it says."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name


def _names(candidate: Candidate) -> set[str]:
    return {normalize(candidate.name), normalize(candidate.distribution)}
