"""Many photographs: a process a core, and a folder that a run which was killed goes on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lse_core.errors import DataError, LSEError, OutputError, unknown_name
from lse_data.items import items_of
from lse_data.objects.settings import palette
from lse_data.scaling.config import ScalingConfig
from lse_data.scaling.picture import IMAGES, MASKS, Outcome, Source, make_versions
from lse_data.scaling.sheet import sheet, strip
from lse_data.scaling.stages import Stages, build_stages

__all__ = ["ENGINES", "MANIFEST", "PREVIEW", "scale_pictures", "sources_of"]

MANIFEST, PREVIEW, UNFINISHED = "manifest.json", "preview.png", ".unfinished"
FORMAT, VERSION = "lse-scaled-objects", 1  # the version rises when equal settings begin to mean other bytes
SHOWN = 16  # photographs on the preview sheet
ENGINES = ("local", "ray")
AHEAD = 3  # photographs a process that are given out and not yet written

_worker: tuple[ScalingConfig, Stages] | None = None


def scale_pictures(
    pictures: Sequence[str | Path],
    out: str | os.PathLike[str],
    config: ScalingConfig,
    *,
    jobs: int | None = 1,
    engine: str = "local",
    device: str = "cpu",
    trust: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Make the set of `config` from photographs: `images/`, `masks/`, `manifest.json` and `preview.png`.

    `images/CLASS/NAME_scale_0.7.JPEG` is read by the data set `scaled_folder`, and its mask, in which
    objects are numbered from 1 on, is `masks/CLASS/NAME_scale_0.7.png`. A run that was interrupted or
    killed goes on when it is called again with equal settings, and its files have the bytes of a run that
    was not. Photographs that are added or change later are made, too.

    Args:
        pictures: files and folders.
        out: the folder to write to.
        config: what to make.
        jobs: processes; with 1 everything happens in this one. None is one for each core.
        engine: "local", or "ray" for Ray Data, whose actors may run on other machines, see
            `lse_data.scaling.ray_engine`. Both give the same bytes.
        device: where stages run that use torch.
        trust: allow stages to fetch what they are told by name.
        force: replace the set that is in the folder.
        progress: called with the numbers of photographs that are done and of all.

    Returns:
        What the manifest says, and "made", the number of photographs that this call worked on.

    Raises:
        DataError: there are no photographs, or two of them would get one name.
        OutputError: the folder holds something else, or cannot be written.
        UnknownNameError: there is no such engine.
        LSEError: a stage cannot be made, a process died, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    folder = Path(out)
    sources = sources_of(pictures, config)
    stages = build_stages(config, trust=trust, device=device)
    settings = {"settings": config.plain(), "versions": {**_versions(), **stages.versions()},
                "version": VERSION}  # fmt: skip
    old = _earlier(folder, settings, force)
    work = folder / UNFINISHED
    (work / "records").mkdir(parents=True, exist_ok=True)
    (work / "strips").mkdir(exist_ok=True)
    _write(work / "run.json", _json(settings))
    records: dict[str, dict[str, Any]] = {}
    stamps = {source.name: _stamp(source, stages) for source in sources}
    for source in sources:
        record = old.get(source.name)
        if record is not None and record["stamp"] == stamps[source.name] and _whole(folder, record):
            records[source.name] = record
    left = [source for source in sources if source.name not in records]
    done = len(records)
    if progress is not None and left:
        progress(done, len(sources))
    if engine == "ray":
        from lse_data.scaling.ray_engine import ray_outcomes

        outcomes = ray_outcomes(left, config, jobs, trust, device) if left else iter(())
    else:
        outcomes = _outcomes(left, config, stages, jobs or cores(), trust, device)
    for source, outcome in outcomes:
        record = {**outcome.record, "stamp": stamps[source.name]}
        for path, data in outcome.files.items():
            _write(folder / path, data)
        if outcome.cells:
            _write(work / "strips" / f"{_key(source.name)}.png", strip(outcome.cells, record))
        _write(work / "records" / f"{_key(source.name)}.json", _json(record))
        records[source.name] = record
        done += 1
        if progress is not None:
            progress(done, len(sources))
    manifest = _manifest([records[source.name] for source in sources], config, settings)
    _finish(folder, manifest, old, changed=bool(left))
    return {**manifest, "made": len(left)}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sources_of(pictures: Sequence[str | Path], config: ScalingConfig) -> list[Source]:
    """The photographs that are meant, and the folder that each lies in.

    Raises:
        DataError: there are none, two would get one name, or one lies in no folder where folders are classes.
    """
    items = items_of(pictures)
    single = len(pictures) == 1 and Path(pictures[0]).is_dir()
    labels = [Path(item.name).parent.name if single else "" for item in items]
    if config.classes == "folders" and not all(labels):
        name = items[labels.index("")].name
        raise DataError(
            f"{name} lies in no folder of a class; name one folder of such folders, or --classes objects"
        )
    kept = config.classes == "folders" or (config.classes is None and all(labels))
    sources = [
        Source(item.file, item.name, label if kept else "") for item, label in zip(items, labels, strict=True)
    ]
    seen: dict[tuple[str, str], str] = {}
    for source in sources:
        key = (source.label.lower(), source.file.stem.lower())  # some file systems ignore case
        if key in seen:
            raise DataError(f"{seen[key]} and {source.name} would get one name; rename one of them")
        seen[key] = source.name
    return sources


def _outcomes(
    sources: Sequence[Source], config: ScalingConfig, stages: Stages, jobs: int, trust: bool, device: str
) -> Iterator[tuple[Source, Outcome]]:
    """What becomes of each photograph, as soon as it is known."""
    jobs = min(jobs, len(sources))
    if jobs <= 1:
        for source in sources:
            yield source, make_versions(source, config, stages)
        return
    import multiprocessing

    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (config, trust, device))
    try:
        waiting = iter(sources)
        running: dict[Future[Outcome], Source] = {}
        while True:
            for source in waiting:
                running[pool.submit(_work, source)] = source
                if len(running) >= AHEAD * jobs:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise LSEError(
            f"one of the {jobs} processes died, perhaps for want of memory; run the command again with fewer "
            "--jobs, and it goes on from here"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(config: ScalingConfig, trust: bool, device: str) -> None:
    """Make a process ready, which ends with the one that started it and leaves interrupts to it."""
    import multiprocessing
    import signal

    import cv2

    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    cv2.setNumThreads(1)
    _worker = (config, build_stages(config, trust=trust, device=device))


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _work(source: Source) -> Outcome:
    assert _worker is not None
    return make_versions(source, *_worker)


def _earlier(folder: Path, settings: Mapping[str, Any], force: bool) -> dict[str, dict[str, Any]]:
    """What is known of photographs from before, by name.

    Raises:
        OutputError: the folder holds something else, or a set of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder to write to")
    if not folder.is_dir() or not any(folder.iterdir()):
        return {}
    if force:
        for name in (UNFINISHED, IMAGES, MASKS):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (MANIFEST, PREVIEW):
            (folder / name).unlink(missing_ok=True)
        return {}
    finished, work = folder / MANIFEST, folder / UNFINISHED
    told = _read(work / "run.json") or _read(finished)
    if told is None or told.get("version") != VERSION:
        raise OutputError(
            f"{folder} is not empty; name another folder, or replace the set in it with --force"
        )
    before = {key: told.get(key) for key in settings}
    if before != settings:
        changed = [
            name
            for part in ("settings", "versions")
            for name, value in settings[part].items()
            if (before[part] or {}).get(name) != value
        ]
        raise OutputError(
            f"{folder} holds a set of other settings ({', '.join(changed[:4])}); name another folder, or "
            "replace the set in it with --force"
        )
    records = [*(_read(finished) or {}).get("pictures", ())]
    records += [_read(file) for file in sorted((work / "records").glob("*.json"))]
    return {record["source"]: record for record in records if record is not None}


def _whole(folder: Path, record: Mapping[str, Any]) -> bool:
    return all(
        (folder / result[key]).is_file() for result in record.get("results", ()) for key in ("file", "mask")
    )


def _manifest(
    records: Sequence[dict[str, Any]], config: ScalingConfig, settings: Mapping[str, Any]
) -> dict[str, Any]:
    kept = [record for record in records if record["status"] == "kept"]
    names = sorted({thing["name"] or "object" for record in kept for thing in record["objects"]})
    classes = ["background", *names]
    return {
        "format": FORMAT,
        **settings,
        "seed": config.seed,
        "factors": sorted(config.factors),
        "classes": classes,
        "palette": palette(len(classes)),
        "counts": {
            "photographs": len(records),
            "kept": len(kept),
            "written": sum(len(record["results"]) for record in kept),
            "rejected": dict(
                sorted(Counter(r["kind"] for r in records if r["status"] == "rejected").items())
            ),
            "not_rgb": sum(record.get("mode", "RGB") != "RGB" for record in records),
            "cut_off": sum(any(thing["cut_off_at"] for thing in record["objects"]) for record in kept),
        },
        "pictures": list(records),
    }


def _finish(
    folder: Path, manifest: Mapping[str, Any], old: Mapping[str, Mapping[str, Any]], *, changed: bool
) -> None:
    """Write the sheet and, last, the manifest; take away what belongs to no photograph any more."""

    def files(records: Any) -> set[str]:
        return {
            result[key]
            for record in records
            for result in record.get("results", ())
            for key in ("file", "mask")
        }

    for name in files(old.values()) - files(manifest["pictures"]):
        (folder / name).unlink(missing_ok=True)
    work = folder / UNFINISHED
    if changed or not (folder / PREVIEW).exists():
        strips = [work / "strips" / f"{_key(record['source'])}.png" for record in manifest["pictures"]]
        drawn = sheet([file for file in strips if file.exists()][:SHOWN])
        if drawn is not None:
            _write(folder / PREVIEW, drawn)
    _write(folder / MANIFEST, _json(manifest))
    shutil.rmtree(work)


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stamp(source: Source, stages: Stages) -> dict[str, str]:
    """Hashes of the files that decide a photograph's versions."""
    find = getattr(stages.detector, "sources", None)
    told: Sequence[Path] = find(source.file, source.name) if find else ()
    stamp = {}
    for name, files in (("picture", [source.file]), ("marks", told)):
        parts = []
        for file in files:
            try:
                state = file.stat()
                parts.append(_digest(file, state.st_size, state.st_mtime_ns))
            except OSError:
                parts.append("unreadable")
        stamp[name] = " ".join(parts)
    return stamp


def _versions() -> dict[str, str]:
    found = {}
    for name in ("lse-data", "lse-core", "numpy", "opencv-python", "pillow", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
