"""benchmarks/scaling.py: who runs where, what is counted, and what the figures mean."""

import dataclasses
import json

import pytest

from benchmarks import scaling
from benchmarks.scaling import Setting
from configure_pretraining import PretrainingConfig
from model.command import DataError

# A stand-in for run_pretraining.py. The first worker's steps take 9, 9, 2, 4 and 3 seconds.
PROGRAM = """
import json, os, pathlib, sys
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
note = {"flags": flags, "cores": sorted(os.sched_getaffinity(0)), "config": os.environ.get("TF_CONFIG")}
pathlib.Path(flags["data_dir"], f"note-{task}.json").write_text(json.dumps(note))
if "fail" in flags:
    sys.exit("error: it failed")
if task == 0:
    pathlib.Path(flags["model_dir"]).mkdir(parents=True)
    rows = [json.dumps({"step": step, "steps_per_second": 1 / seconds}) for step, seconds in enumerate([9, 9, 2, 4, 3])]
    pathlib.Path(flags["model_dir"], "train_metrics.jsonl").write_text("\\n".join(rows))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "run_pretraining.py").write_text(PROGRAM)
    monkeypatch.setattr(scaling, "ROOT", tmp_path)
    return tmp_path


def test_every_worker_has_a_core_of_its_own_and_warm_up_is_not_counted(folder):
    cores = sorted(scaling.os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    assert scaling.run(Setting("two", 2, 16), [f"--data_dir={folder}"], folder / "run", warm_up=2) == 3.0
    notes = [json.loads((folder / f"note-{index}.json").read_text()) for index in range(2)]
    assert [note["cores"] for note in notes] == [[cores[0]], [cores[1]]]
    configs = [json.loads(note["config"]) for note in notes]
    assert [config["task"]["index"] for config in configs] == [0, 1]
    assert configs[0]["cluster"] == configs[1]["cluster"] and len(set(configs[0]["cluster"]["worker"])) == 2
    assert all(note["flags"]["train_batch_size"] == "16" for note in notes) and not (folder / "run").exists()


def test_one_worker_runs_without_a_cluster(folder, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    scaling.run(Setting("one", 1, 8), [f"--data_dir={folder}"], folder / "run", warm_up=4)
    assert json.loads((folder / "note-0.json").read_text())["config"] is None


def test_a_run_that_fails_ends_the_benchmark_with_its_last_line(folder):
    with pytest.raises(DataError, match="two: run_pretraining.py ended with 1: error: it failed"):
        scaling.run(Setting("two", 1, 16), [f"--data_dir={folder}", "--fail=1"], folder / "run", warm_up=2)


def test_the_settings_keep_the_total_batch_or_the_batch_per_worker():
    assert [(way.workers, way.batch_size) for way in scaling.settings(4, 16)] == [(1, 16), (4, 16), (4, 64)]


def test_efficiency_is_the_share_of_as_many_times_one_workers_rate():
    ways = scaling.settings(2, 10)
    rows = scaling.summarize({ways[0].name: [5.0, 1.0, 2.0], ways[1].name: [1.25], ways[2].name: [2.5]}, ways)
    assert [row["examples_per_second"] for row in rows] == [5.0, 8.0, 8.0]
    assert [row["speed_up"] for row in rows] == [1.0, 1.6, 1.6] and [row["efficiency"] for row in rows] == [1.0, 0.8, 0.8]


def test_the_flags_it_gives_exist():
    names = {word[2:].partition("=")[0] for word in scaling.arguments("DIR", "FILE", 25)}
    assert names <= {field.name for field in dataclasses.fields(PretrainingConfig)} | {"hparams"} and len(names) > 4
