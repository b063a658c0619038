"""Batcher: requests that come at the same time are computed together, those that would wait too long are refused at once."""

import asyncio
import collections
import concurrent.futures
from collections.abc import Callable, Sequence

import numpy as np

from server.loaded_model import BadRequest, Columns, LoadedModel, Request


class Overloaded(Exception):
    """So much is waiting already that a request would only add to the queue."""


class Batcher:
    """Computes the requests of one model, one batch after the other, in a thread of its own.

    Args:
      max_rows: of a batch.
      max_waiting: rows that may wait; beyond, `submit` raises Overloaded.
      window: seconds to wait for companions after the first request.
      observe: is told how many rows each batch has.
    """

    def __init__(self, model: LoadedModel, max_rows: int, max_waiting: int, window: float, observe: Callable[[int], None]):
        self._observe, self._max_values = observe, model.limits.max_values
        self._model, self._max_rows, self._max_waiting, self._window = model, max_rows, max_waiting, window
        self._waiting: collections.deque[tuple[Request, asyncio.Future[Columns]]] = collections.deque()
        self._arrival = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, f"model-{model.name}")

    @property
    def is_full(self) -> bool:
        return self.waiting_rows >= self._max_waiting

    @property
    def waiting_rows(self) -> int:
        return sum(request.rows for request, answer in self._waiting if not answer.done())

    async def submit(self, request: Request) -> Columns:
        """The outputs for `request`; whoever is cancelled while it waits costs nothing more."""
        if self.waiting_rows + request.rows > self._max_waiting:
            raise Overloaded
        answer: asyncio.Future[Columns] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._arrival.set()
        return await answer

    async def work(self) -> None:
        """Computes what arrives, until it is cancelled."""
        while True:
            await self._arrival.wait()
            await asyncio.sleep(self._window)
            if batch := self._take():
                try:
                    await self._compute(batch)
                except Exception as error:  # the next batch may fare better, and nobody may wait for ever
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(RuntimeError(f"{error}"))
            if not self._waiting:
                self._arrival.clear()

    def _take(self) -> list[tuple[Request, "asyncio.Future[Columns]"]]:
        """The oldest request, and of those behind it all that fit into its batch."""
        taken: list[tuple[Request, asyncio.Future[Columns]]] = []
        left: collections.deque[tuple[Request, asyncio.Future[Columns]]] = collections.deque()
        rows = values = 0
        for request, answer in self._waiting:
            if answer.done():
                continue
            fits = rows + request.rows <= self._max_rows and values + request.values <= self._max_values
            if not taken or (request.key() == taken[0][0].key() and fits):
                taken.append((request, answer))
                rows, values = rows + request.rows, values + request.values
            else:
                left.append((request, answer))
        self._waiting = left
        return taken

    async def _compute(self, batch: Sequence[tuple[Request, "asyncio.Future[Columns]"]]) -> None:
        requests = [request for request, _ in batch]
        self._observe(sum(request.rows for request in requests))
        results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, requests)
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _run(self, requests: Sequence[Request]) -> "list[Columns | Exception]":
        """What each request gets; where the model refuses a batch, each is tried alone, so that one does not spoil the others."""
        try:
            columns = {name: np.concatenate([request.columns[name] for request in requests]) for name in requests[0].columns}
            outputs = self._model.run(requests[0].signature, columns)
            per_piece = self._model.per_piece(requests[0].signature)
            return [_rows(outputs, start, request.rows, per_piece) for start, request in zip(_starts(requests), requests, strict=True)]
        except BadRequest as error:
            return [error] if len(requests) == 1 else [result for request in requests for result in self._run([request])]
        except Exception as error:  # whatever it is, the server stays up and says so
            return [error] * len(requests)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _starts(requests: Sequence[Request]) -> list[int]:
    return [0, *np.cumsum([request.rows for request in requests])[:-1].tolist()]


def _rows(outputs: Columns, start: int, count: int, per_piece: Sequence[str]) -> Columns:
    """One request's part of a batch. Texts are padded to the longest of the batch: what others made it longer is cut off."""
    part = {name: values[start : start + count] for name, values in outputs.items()}
    if "input_mask" not in part:
        return part
    length = int(part["input_mask"].sum(-1).max())
    return {name: values[:, :length] if name in per_piece else values for name, values in part.items()}
