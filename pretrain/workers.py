"""A pool of processes that keeps results in order, work in flight bounded, and nothing running once its owner is dead."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from model.command import DataError

# Where a builder can run: in processes of this machine, or on one of Apache Beam's runners (pretrain/beam_pipelines.py).
RUNNERS = ("local", "DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner", "PortableRunner")

_worker: Any = None  # the object that a worker process works with


def _start(make_worker: Callable[[], Any]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker = make_worker()


def _die_with_parent() -> None:
    """The workers of a killed parent would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(method: str, task: Any) -> Any:
    return getattr(_worker, method)(task)


class Workers:
    """`num_processes` processes, each with its own make_worker(); a single one does without a second process.

    Processes are spawned, not forked: neither a Java machine nor threads survive a fork.
    """

    def __init__(self, make_worker: Callable[[], Any], num_processes: int) -> None:
        self._make_worker = make_worker
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None
        self._own_worker: Any = None

    def __enter__(self) -> "Workers":
        if self._num_processes == 1:
            self._own_worker = self._make_worker()
        else:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._num_processes, context, _start, (self._make_worker,))
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, method: str, tasks: Iterator[Any]) -> Iterator[Any]:
        """Yields worker.method(task) for every task, in order; reads no more than a few tasks ahead."""
        if self._pool is None:
            yield from map(getattr(self._own_worker, method), tasks)
            return
        running: deque[Future] = deque()
        try:
            for task in tasks:
                running.append(self._pool.submit(_call, method, task))
                if len(running) >= 4 * self._num_processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            message = "a worker process died, perhaps for lack of memory: run again to resume, with fewer --num_processes"
            raise DataError(message) from error
