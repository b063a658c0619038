"""benchmarks/cost_model.py: the formulas, worked by hand, and what the table must show."""

import json

import pytest

from benchmarks import cost_model
from benchmarks.cost_model import Accelerator, all_reduce_seconds, format_table, ring_seconds, step, table
from configure_pretraining import PretrainingConfig
from flops_computation import ACTUAL, DEFAULT_VOCAB_SIZE, count_parameters, training_cost
from model.hparams import read_hparams

# 1 TFLOP/s, islands of 4 with links of 100 MB/s, 10 MB/s between them, 1 ms a message, two replicas a host.
SLOW = Accelerator("slow", 1e12, 4, 1e8, 1e7, 1e-3, 2)


@pytest.fixture(scope="module")
def small() -> PretrainingConfig:
    return PretrainingConfig.create("", "", read_hparams(cost_model.CONFIGS[0]))


def test_a_ring_sends_every_share_twice_but_for_one():
    assert ring_seconds(8e6, 1, 1e8, 1e-3) == 0.0
    assert ring_seconds(8e6, 2, 1e8, 1e-3) == pytest.approx(2 * (0.04 + 0.001))
    assert ring_seconds(8e6, 4, 1e8, 1e-3) == pytest.approx(6 * (0.02 + 0.001))


def test_beyond_an_island_the_network_carries_the_shares():
    within = 6 * (0.02 + 0.001)
    assert all_reduce_seconds(8e6, 4, SLOW) == pytest.approx(within)
    assert all_reduce_seconds(8e6, 16, SLOW) == pytest.approx(within + 6 * (2e6 / 4 / 1e7 + 0.001))


def test_a_step_is_compute_and_all_reduce_or_input_where_that_takes_longer(small):
    flops = training_cost(small, DEFAULT_VOCAB_SIZE, ACTUAL).step
    size = 4 * count_parameters(small, DEFAULT_VOCAB_SIZE).total
    fast, starved = step(small, 16, SLOW, 0.5, 1e6), step(small, 16, SLOW, 0.5, 1.0)
    assert fast.compute == pytest.approx(flops / 16 / 0.5e12) and fast.all_reduce == pytest.approx(all_reduce_seconds(size, 16, SLOW))
    assert fast.input == pytest.approx(128 / 8 / 1e6) and fast.seconds == pytest.approx(fast.compute + fast.all_reduce)
    assert fast.efficiency == pytest.approx(fast.compute / fast.seconds) and fast.examples_per_second == pytest.approx(128 / fast.seconds)
    assert starved.seconds == 16.0 and starved.examples_per_second == 8.0


def test_the_table_has_a_row_for_every_count_that_divides_the_batch(small):
    rows = table(small, 0.5, 1e5)
    assert [row["replicas"] for row in rows if row["accelerator"] == "H100"] == [8, 16, 32, 64, 128]
    growing = [row for row in table(small, 0.5, 1e5, batch_each=32) if row["accelerator"] == "A100"]
    assert [row["batch_size"] for row in growing] == [32 * count for count in cost_model.COUNTS]
    assert len({round(row["compute"], 12) for row in growing}) == 1
    assert all(earlier["efficiency"] >= later["efficiency"] for earlier, later in zip(growing, growing[1:], strict=False))
    lines = format_table(rows).splitlines()
    assert len(lines) == len(rows) + 2 and len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_the_command_prints_three_tables_and_writes_the_numbers(run_script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(cost_model.ROOT))
    output = run_script("benchmarks/cost_model.py", "--input_rate=50000", f"--output={tmp_path / 'out.json'}").stdout
    assert [line.split(":")[0] for line in output.splitlines() if "FLOP an example" in line] == [
        "electra_small",
        "electra_base",
        "electra_large",
    ]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["input_rate"] == 50000 and found["share"] == 0.5 and len(found["tables"]["electra_large"]) == 24
