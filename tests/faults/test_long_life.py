"""Used by many at once, and for long."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner

import lse_dec
import lse_export
from lse_core.atomic import replacing
from lse_core.cli import main
from lse_core.errors import DataError
from lse_data import read_digits
from lse_export.runtime import open_session
from lse_train.process import sole_writer

LSE = [sys.executable, "-c", "from lse_core.cli import main; main()"]

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
    command = [*LSE, "export", "onnx", "model", "--out", "one.onnx", "--force"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"
    ]
    for process in both:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert [p.name for p in place.glob("*one.onnx*")] == ["one.onnx"]
    assert [p.name for p in place.glob(".*one.onnx*")] == []
    assert lse_export.verify(place / "one.onnx", lse_dec.load(place / "model"), torch.rand(2, 3, 32, 32)).ok


def test_a_file_replaced_while_it_answers(place: Path) -> None:
    """What was opened goes on answering: a new file takes the place of the name, not of the open file."""
    session = open_session(place / "model.onnx")
    x = torch.rand(2, 3, 32, 32).numpy()
    (name,) = (value.name for value in session.get_inputs())
    before = session.run(None, {name: x})[0]
    with replacing(place / "model.onnx", overwrite=True) as partial:
        partial.write_bytes(b"replaced")
    np.testing.assert_array_equal(session.run(None, {name: x})[0], before)


def test_one_folder_is_trained_in_by_one_process(place: Path) -> None:
    with sole_writer(place / "run"):
        done = CliRunner().invoke(main, ["train", "run.yaml", "--out", "run"], standalone_mode=True)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "another process" in done.stderr


def test_a_data_set_read_while_it_is_written_anew(place: Path) -> None:
    """Readers find the old one or the new one, whole, or are told that none is finished."""
    stop = threading.Event()
    failures: list[BaseException] = []
    whole: list[int] = []

    def read() -> None:
        while not stop.is_set():
            try:
                whole.append(len(read_digits(place / "digits")))
            except DataError as error:
                if "no finished data set" not in str(error):
                    failures.append(error)
                    return
            except BaseException as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for count in (6, 4, 6):
            args = [
                "data",
                "digits",
                "--out",
                "digits",
                "--count",
                str(count),
                "--resolution",
                "32",
                "--force",
            ]
            assert CliRunner().invoke(main, args, standalone_mode=True).exit_code == 0
    finally:
        stop.set()
        reader.join()
    assert failures == []
    assert set(whole) <= {4, 6}
    assert whole
