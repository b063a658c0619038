"""Batcher: every request gets its own rows back, whatever came with it, and nobody waits for ever."""

import asyncio

import numpy as np
import pytest

from server.batching import Batcher, Overloaded
from server.loaded_model import BadRequest, Limits, Request


class Doubler:
    """A model whose output for a row is twice its ids, padded to the longest of the batch as texts are; id 13 is refused."""

    name, limits = "doubler", Limits()

    def __init__(self):
        self.batches = []

    def per_piece(self, signature):
        return ["twice", "input_mask"]

    def run(self, signature, columns):
        rows = [list(map(int, text.decode().split())) for text in columns["texts"]]
        self.batches.append((signature, len(rows)))
        if any(13 in row for row in rows):
            raise BadRequest("13")
        if any(99 in row for row in rows):
            raise ZeroDivisionError
        length = max(map(len, rows))
        padded = np.array([row + [0] * (length - len(row)) for row in rows])
        # [B, 3] is no output of pieces, though it may be as wide.
        return {"twice": 2 * padded, "input_mask": (padded > 0).astype(np.int32), "sum": np.tile(padded.sum(1)[:, None], 3)}


def request(*texts, signature="serving_default", values=1):
    return Request(signature, {"texts": np.array([text.encode() for text in texts], object)}, False, values)


def together(requests, max_rows=64, max_waiting=64, cancelled=()):
    """What becomes of requests that come at the same time: (outputs or exceptions, the batches)."""
    model, sizes = Doubler(), []

    async def run():
        batcher = Batcher(model, max_rows, max_waiting, 0.01, sizes.append)
        worker = asyncio.create_task(batcher.work())
        tasks = [asyncio.create_task(batcher.submit(one)) for one in requests]
        await asyncio.sleep(0)
        for index in cancelled:
            tasks[index].cancel()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        worker.cancel()
        batcher.close()
        return found

    return asyncio.run(run()), model.batches, sizes


def test_requests_of_different_lengths_share_a_batch_and_get_their_own_rows():
    found, batches, sizes = together([request("1 2 3 4 5"), request("6"), request("7 8 9", "1")])
    assert batches == [("serving_default", 4)] and sizes == [4]
    assert [outputs["twice"].tolist() for outputs in found] == [[[2, 4, 6, 8, 10]], [[12]], [[14, 16, 18], [2, 0, 0]]]
    assert [outputs["sum"].tolist() for outputs in found] == [[[15] * 3], [[6] * 3], [[24] * 3, [1] * 3]]


def test_signatures_rows_and_sizes_of_answers_keep_requests_apart():
    found, batches, _ = together([request("1"), request("2", signature="other"), request("3")])
    assert batches == [("serving_default", 2), ("other", 1)] and [outputs["sum"][0, 0] for outputs in found] == [1, 2, 3]
    assert [rows for _, rows in together([request("1", "2"), request("3", "4"), request("5")], max_rows=3)[1]] == [3, 2]
    assert [rows for _, rows in together([request("1", values=5_000_000), request("2", values=5_000_000)])[1]] == [1, 1]


def test_a_bad_request_among_good_ones_spoils_nothing():
    found, batches, _ = together([request("1"), request("13"), request("2")])
    assert isinstance(found[1], BadRequest) and [found[index]["sum"][0, 0] for index in (0, 2)] == [1, 2]
    assert batches == [("serving_default", 3), *[("serving_default", 1)] * 3]


def test_a_fault_reaches_all_of_its_batch_and_the_next_one_is_computed():
    found, _, _ = together([request("99"), request("1"), request("2", signature="other")])
    assert [type(result) for result in found[:2]] == [ZeroDivisionError] * 2 and found[2]["sum"][0, 0] == 2


def test_who_is_gone_costs_nothing_and_who_is_too_many_is_refused():
    found, batches, _ = together([request("1"), request("2"), request("3")], cancelled=[1])
    assert isinstance(found[1], asyncio.CancelledError) and batches == [("serving_default", 2)]
    found, _, _ = together([request("1", "2"), request("3"), request("4", "5")], max_waiting=3)
    assert isinstance(found[2], Overloaded) and [found[index]["sum"][0, 0] for index in (0, 1)] == [1, 3]


def test_requests_know_what_they_may_be_computed_with():
    assert request("1").key() == request("1 2").key() != request("1", signature="other").key()
    with pytest.raises(AttributeError):
        request("1").rows = 3
