"""Input streams: the shards of a data set dealt out, so that each of several workers reads only its own.

A global batch is made of equal slices, one per stream. Every stream has shards of its own and an order of its own, so a batch
depends on the number of streams, but not on how many workers share them:

    shards 0 1 2 3, 2 streams -> stream 0: shards 0 2, rows [0, B/2) of every batch; stream 1: shards 1 3, rows [B/2, B)
"""

from collections.abc import Sequence

from absl import logging

from model.command import UserError

_MAX_IMBALANCE = 1.1  # a stream with fewer examples than another begins its epochs sooner, and shows its examples more often


def deal(counts: Sequence[int], streams: int) -> list[list[int]]:
    """The places of each stream's shards among all. `counts`: records of every shard.

    Largest first, each shard goes to the stream that has the fewest records so far; of equals the first counts.
    """
    dealt: list[list[int]] = [[] for _ in range(streams)]
    for place in sorted(range(len(counts)), key=lambda place: -counts[place]):
        min(dealt, key=lambda places: sum(counts[other] for other in places)).append(place)
    return [sorted(places) for places in dealt]


def choose_streams(counts: Sequence[int], batch_size: int, workers: int, asked: int | None) -> int:
    """The number of streams: `asked`, else one per worker where that is possible, else 1, of which every worker reads all.

    Raises UserError if what was asked for is not possible.
    """
    streams = asked or workers
    problem = _problem(counts, batch_size, workers, streams)
    if problem and asked:
        raise UserError(f"input_streams {asked} is not possible: {problem} (--input_streams)")
    if problem:
        logging.warning("Every worker reads all shards: %s", problem)
        return 1
    if workers > 1 and streams > 1:
        logging.info("Each of %d workers reads only its shards: %d input streams", workers, streams)
    return streams


def _problem(counts: Sequence[int], batch_size: int, workers: int, streams: int) -> str | None:
    """Why the data cannot be read in so many streams."""
    if streams == 1:
        return None
    if streams % workers:
        return f"{streams} streams cannot be shared out evenly among {workers} workers"
    if batch_size % streams:
        return f"train_batch_size {batch_size} is not a multiple of {streams} streams"
    totals = [sum(counts[place] for place in places) for places in deal(counts, streams)]
    if max(totals) > _MAX_IMBALANCE * min(totals):
        return (
            f"of {len(counts)} shards, {streams} streams would get from {min(totals)} to {max(totals)} examples, where at most "
            f"{round(100 * (_MAX_IMBALANCE - 1))} % more is allowed; build the data set with more shards (--num_out_files)"
        )
    return None
