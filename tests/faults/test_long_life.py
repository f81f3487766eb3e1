"""Used by many at once, and for long."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import lse_dec
import lse_export
from lse_export import predict as predicting

GROWTH = 512 * 1024
"""Bytes that Python's own memory may grow by over 2,000 calls; and 32 MB in all of the process's."""


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096


def test_two_thousand_calls_do_not_grow(place: Path) -> None:
    model = lse_dec.load(place / "model")
    x = torch.rand(1, 3, 32, 32)
    sizes = [torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 32), torch.rand(1, 3, 64, 48)]
    with torch.no_grad():
        for i in range(200):
            model(sizes[i % 3])
        gc.collect()
        tracemalloc.start()
        before, held = tracemalloc.get_traced_memory()[0], resident()
        for i in range(2_000):
            model(x if i % 10 else sizes[i % 3])
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown < GROWTH, f"{grown} bytes"
    assert resident() - held < 32 * 2**20


def test_threads_calling_one_model_get_their_own_answers(place: Path) -> None:
    model = lse_dec.load(place / "model")
    inputs = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    with torch.no_grad():
        alone = [model(x) for x in inputs]

        def ask(i: int) -> torch.Tensor:
            with torch.no_grad():
                answer: torch.Tensor = model(inputs[i % 8])
            return answer

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(64)))
    for i, answer in enumerate(answers):
        torch.testing.assert_close(answer, alone[i % 8], atol=1e-6, rtol=0)


def test_threads_that_observe_see_what_they_asked(place: Path) -> None:
    """`observe` is of a model, not of a thread: it must at least not break calls beside it."""
    model = lse_dec.load(place / "model")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                with lse_dec.observe(model):
                    pass

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for _ in range(50):
                torch.testing.assert_close(model(x), expected, atol=0, rtol=0)
        finally:
            stop.set()
            watcher.join()


def test_two_exports_to_one_file_leave_one_whole_file(place: Path) -> None:
    model = lse_dec.load(place / "model")
    x = torch.rand(2, 3, 32, 32)
    first = (place / "model.onnx").read_bytes()
    from lse_core.atomic import replacing

    barrier = threading.Barrier(4)

    def export(i: int) -> None:
        barrier.wait()
        with replacing(place / "one.onnx", overwrite=True) as partial:
            partial.write_bytes(first)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(export, range(4)))
    assert (place / "one.onnx").read_bytes() == first
    assert [p.name for p in place.glob("*one.onnx*")] == ["one.onnx"]
    assert lse_export.verify(place / "one.onnx", model, x).ok


def test_a_file_replaced_while_it_answers(place: Path) -> None:
    """What was opened goes on answering; the next start reads the new file."""
    assert predicting  # the command reads the file once, before the first picture
    model = lse_dec.load(place / "model")
    session = lse_export.Session(place / "model.onnx") if hasattr(lse_export, "Session") else None
    x = torch.rand(2, 3, 32, 32)
    if session is None:
        assert lse_export.verify(place / "model.onnx", model, x).ok
        return
    before = session.run(x)
    (place / "model.onnx").write_bytes(b"replaced")
    torch.testing.assert_close(torch.as_tensor(session.run(x)[0]), torch.as_tensor(before[0]))
