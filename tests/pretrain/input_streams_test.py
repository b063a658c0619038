"""pretrain/input_streams.py: shards dealt out by count, and what is said where that cannot be done."""

import logging

import pytest

from model.command import UserError
from pretrain.input_streams import choose_streams, deal


@pytest.mark.parametrize(
    "counts, streams, expected",
    [
        ([5, 1, 4], 1, [[0, 1, 2]]),
        ([4, 4, 4, 4], 2, [[0, 2], [1, 3]]),
        ([3, 5, 4, 4], 2, [[0, 1], [2, 3]]),  # 5 | 4, then 4 to the second, 3 to the first
        ([1, 1, 1, 9, 1], 2, [[3], [0, 1, 2, 4]]),
        ([2, 0, 2], 3, [[0], [2], [1]]),
    ],
)
def test_the_largest_shard_goes_to_the_stream_with_the_fewest_records(counts, streams, expected):
    assert deal(counts, streams) == expected


@pytest.mark.parametrize("workers, asked, expected", [(1, None, 1), (2, None, 2), (4, None, 4), (1, 2, 2), (2, 4, 4), (2, 1, 1)])
def test_one_stream_for_each_worker_unless_told_otherwise(caplog, workers, asked, expected):
    with caplog.at_level(logging.WARNING):
        assert choose_streams([10] * 8, 16, workers, asked) == expected
    assert not caplog.records


@pytest.mark.parametrize(
    "counts, batch_size, workers, streams, problem",
    [
        ([10] * 8, 16, 2, 3, "3 streams cannot be shared out evenly among 2 workers"),
        ([10] * 8, 15, 1, 2, "train_batch_size 15 is not a multiple of 2 streams"),
        ([10], 16, 2, 2, "of 1 shards, 2 streams would get from 0 to 10 examples.*--num_out_files"),
        ([10] * 5, 16, 2, 2, "of 5 shards, 2 streams would get from 20 to 30 examples, where at most 10 % more is allowed"),
    ],
)
def test_what_cannot_be_is_an_error_where_it_was_asked_for(counts, batch_size, workers, streams, problem):
    with pytest.raises(UserError, match=rf"input_streams {streams} is not possible: {problem}.*\(--input_streams\)"):
        choose_streams(counts, batch_size, workers, streams)


def test_otherwise_every_worker_reads_everything_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_streams([10] * 5, 16, 2, None) == 1
    assert "Every worker reads all shards: of 5 shards, 2 streams would get from 20 to 30 examples" in caplog.text


def test_streams_may_differ_by_a_tenth():
    assert choose_streams([110, 100], 16, 2, None) == 2 and choose_streams([111, 100], 16, 2, None) == 1
