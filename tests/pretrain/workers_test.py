"""The pool is tried with modules of the standard library as workers: what a spawned process is given, it must be able to import."""

import functools
import os

import pytest

from model.command import DataError
from pretrain.workers import Workers

import_os = functools.partial(__import__, "os")


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_tasks_are_read_a_few_ahead(processes):
    read = []

    def tasks():
        for number in range(1, 60):
            read.append(number)
            yield number

    with Workers(import_os, processes) as workers:
        for done, text in enumerate(workers.map("strerror", tasks()), 1):
            assert text == os.strerror(done)
            assert len(read) <= done + 4 * processes
    assert done == 59


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_of_a_task_arrive(processes):
    with Workers(import_os, processes) as workers, pytest.raises(FileNotFoundError):
        list(workers.map("listdir", iter(["/", "/nowhere", "/"])))


def test_dead_worker_is_one_sentence():
    with Workers(import_os, 2) as workers, pytest.raises(DataError, match="a worker process died.*--num_processes"):
        list(workers.map("_exit", iter([3])))
