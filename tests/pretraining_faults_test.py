"""What happens to a pre-training run that is killed, robbed of its disk, its clock or its data, or started twice.

Each fault ends, once it is over and the same command was given again, in the bits of a run that nothing disturbed; the table is in
docs/reliability.md.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import time

import numpy as np
import pytest

from model import checkpoint
from tests.kills import kill_at_random, temporary_files
from tests.pretraining_home import assert_refused, contents, flags, history, make_home, variables

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS = 16


def pretraining_flags(home, folder, *more):
    """Saves at every step some 30 MB, so that a good part of the time is spent saving."""
    settings = {"embedding_size": 64, "num_train_steps": STEPS, "save_checkpoints_steps": 1, "keep_checkpoint_max": 2, "log_steps": 2}
    return ["run_pretraining.py", *flags(home, "mini", model_dir=str(folder), learning_rate=5e-3, **settings), *more]


def assert_same_run(folder, whole, steps=STEPS):
    """The same bits in the last checkpoint, and the same history."""
    expected, found = (variables(place / f"model.ckpt-{steps}") for place in (whole, folder))
    assert expected.keys() == found.keys() and any(name.endswith("/adam_v") for name in expected)
    assert not [name for name in expected if expected[name].tobytes() != found[name].tobytes()]
    rows, expected_rows = history(folder), {row["step"]: row for row in history(whole)}
    assert len(rows) >= len(expected_rows) and rows[-1]["step"] == steps
    for row in rows:
        for name in ("loss", "disc_loss", "masked_lm_loss", "gradient_norm"):
            assert row[name] == expected_rows.get(row["step"], row)[name]
    assert not temporary_files(folder)


def step_of(folder):
    newest = checkpoint.latest(str(folder))
    return int(newest.rpartition("-")[2]) if newest else 0


@pytest.fixture(scope="module")
def undisturbed(fork_script, tmp_path_factory):
    """(data_dir, model_dir of a run that nothing disturbed)"""
    folder = tmp_path_factory.mktemp("undisturbed")
    home = make_home(folder / "home")
    assert fork_script(*pretraining_flags(home, folder / "whole")).wait().code == 0
    return home, folder / "whole"


@pytest.mark.slow
def test_trained_again_and_again_after_kills(fork_script, tmp_path):
    home = make_home(tmp_path / "home", vocab_size=20000)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert fork_script(*pretraining_flags(home, whole)).wait().code == 0

    def start():
        if out.exists() and step_of(out):
            checkpoint.read(checkpoint.latest(str(out)), ["global_step"])  # what a kill left last is whole
        return fork_script(*pretraining_flags(home, out))

    assert kill_at_random(start, out, lambda: assert_same_run(out, whole), lambda: temporary_files(out)) >= 2
    kept = {f"model.ckpt-{step}.{suffix}" for step in (STEPS - 1, STEPS) for suffix in ("index", "data-00000-of-00001")}
    assert {path.name for path in out.iterdir() if "ckpt" in path.name} == kept


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_says_so_and_goes_on(undisturbed, fork_script, tmp_path):
    (home, whole), out = undisturbed, tmp_path / "out"
    running = fork_script(*pretraining_flags(home, out))
    while running.runs(0.002) and step_of(out) < 2:
        pass
    running.kill(signal.SIGTERM)
    result, stopped_at = running.wait(), step_of(out)
    assert result.code == 128 + signal.SIGTERM and f"stopped by SIGTERM at step {stopped_at}, checkpoint saved" in result.last_line
    assert 2 <= stopped_at < STEPS and "Traceback" not in result.err and not temporary_files(out)
    assert fork_script(*pretraining_flags(home, out)).wait().code == 0
    assert_same_run(out, whole)


# --- one of several workers --------------------------------------------------------------------------------------------------------------


def start_workers(fork_script, home, *folders):
    """Two processes of one run with these folders, on this machine, as TF_CONFIG tells them; [the first, which writes, and the other]."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    configs = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in range(2)]
    places = zip(folders, configs, strict=True)
    return [fork_script(*pretraining_flags(home, folder), TF_CONFIG=json.dumps(config)) for folder, config in places]


@pytest.mark.slow
def test_workers_stop_together_and_notice_the_loss_of_one(fork_script, tmp_path):
    """One told to stop, the second killed, the first killed: all end by themselves, and started again they end in the same bits."""
    home, whole, out = make_home(tmp_path / "home"), tmp_path / "whole", tmp_path / "out"
    for worker in start_workers(fork_script, home, whole, whole):
        assert worker.wait().code == 0
    faults = [(1, signal.SIGTERM, "stopped at step", 10), (1, signal.SIGKILL, "lost another worker", 60)]
    faults += [(0, signal.SIGKILL, "lost another worker", 60)]
    for number, signum, sentence, limit in faults:
        workers, target = start_workers(fork_script, home, out, out), step_of(out) + 2
        hit, other = workers[number], workers[1 - number]
        while hit.runs(0.002) and step_of(out) < target:
            pass
        hit.kill(signum)
        begin = time.monotonic()
        assert not other.runs(limit), "it waits for a worker that is gone"
        seconds = time.monotonic() - begin
        ended, own = other.wait(), hit.wait()
        print(f"{signum.name} to worker {number}: it exits with {own.code}, the other after {seconds:.1f} s with {ended.code}")
        assert ended.code == 75 and ended.last_line.startswith("run_pretraining.py: error: ") and sentence in ended.last_line
        assert "Traceback" not in ended.err and target <= step_of(out) < STEPS
        assert own.code == (143 if signum == signal.SIGTERM else -signal.SIGKILL)
        if signum == signal.SIGTERM:
            assert f"at step {step_of(out)}, " in own.last_line and f"at step {step_of(out)}, " in ended.last_line
    for worker in start_workers(fork_script, home, out, tmp_path / "elsewhere"):
        result = worker.wait()
        assert result.code == 2
        assert_refused(result, "this worker found the checkpoint of step ", "and others found another", "--model_dir")
    for worker in start_workers(fork_script, home, out, out):
        assert worker.wait().code == 0
    assert_same_run(out, whole)


# --- two runs in one folder --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused_and_evaluation_beside_it_is_not(fork_script, tmp_path):
    home, out = make_home(tmp_path / "home", vocab_size=2000), tmp_path / "out"
    first = fork_script(*pretraining_flags(home, out, "--num_train_steps=100000"))
    while first.runs(0.002) and step_of(out) < 1:
        pass
    first.kill(signal.SIGSTOP)  # it holds still, and its lock
    before = contents(out)
    second = fork_script(*pretraining_flags(home, out)).wait()
    assert second.code == 2
    assert_refused(second, "another run is training in ", str(out), "--model_dir")
    assert contents(out) == before
    arguments = ["--nodo_train", "--do_eval", f"--results_txt={tmp_path}/results.txt"]
    assert fork_script(*pretraining_flags(home, out, *arguments)).wait().code == 0
    assert contents(out) == before and "loss: " in (tmp_path / "results.txt").read_text()
    first.kill()
    assert first.wait().code == -signal.SIGKILL
    assert fork_script(*pretraining_flags(home, out, f"--num_train_steps={step_of(out) + 1}")).wait().code == 0  # the lock died with it


# --- a full disk, a folder that cannot be written to -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_disk_that_is_full_or_write_protected_costs_nothing(fork_script, mount, tmp_path):
    home, whole = make_home(tmp_path / "home", vocab_size=2000), tmp_path / "whole"
    assert fork_script(*pretraining_flags(home, whole)).wait().code == 0
    seen = []
    for options in ("size=4k", "size=4k,ro", "size=5m"):
        out = mount(options) / "out"
        before, result = contents(out), fork_script(*pretraining_flags(home, out)).wait()
        assert result.code in (1, 2), result.err[-3000:]
        assert_refused(result, "cannot " if "k" in options else "could not write a checkpoint to ", str(out))
        assert not temporary_files(out)
        seen.append(step_of(out))
        if "ro" in options:
            assert contents(out) == before
        mount("size=100m,rw")
    assert seen[:2] == [0, 0] and 0 < seen[2] < STEPS
    checkpoint.read(checkpoint.latest(str(out)), ["global_step"])
    protected = mount("ro")
    results = fork_script(*pretraining_flags(home, out, "--nodo_train", "--do_eval")).wait()
    assert results.code in (1, 2) and protected
    assert_refused(results, "Read-only file system", str(out))
    mount("rw")
    assert fork_script(*pretraining_flags(home, out)).wait().code == 0
    assert_same_run(out, whole)


# --- a clock that jumps, a loss that is none, records that are damaged ------------------------------------------------------------------


@pytest.fixture
def changed(tmp_path, fork_script):
    """changed(code, HOME, FOLDER) -> the run, begun in a process in which `code` ran before."""

    def start(code, home, folder):
        path = tmp_path / "run_pretraining.py"
        path.write_text(f"{code}\nimport runpy\nrunpy.run_path({str(ROOT / path.name)!r}, run_name='__main__')\n")
        return fork_script(str(path), *pretraining_flags(home, folder)[1:])

    return start


@pytest.mark.slow
def test_a_clock_that_jumps_by_years_changes_nothing(undisturbed, changed, tmp_path):
    """Forward and back at every look at it, and between two runs; what the first run wrote is from the future then."""
    (home, whole), out = undisturbed, tmp_path / "out"
    jumping = "import itertools, time\njumps, real = itertools.cycle((3e8, -9e8, 0)), time.time\ntime.time = lambda: real() + next(jumps)"
    first = changed(jumping, home, out)
    while first.runs(0.002) and step_of(out) < 3:
        pass
    first.kill()
    assert first.wait().code == -signal.SIGKILL
    for number, path in enumerate(sorted(out.rglob("*"))):
        years = 40 if number % 2 else -20
        os.utime(path, (time.time() + years * 3.15e7,) * 2)
    result = changed(jumping, home, out).wait()
    assert result.code == 0 and "Resumed from " in result.err
    assert_same_run(out, whole)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_at_one_step_costs_nothing(undisturbed, changed, fork_script, tmp_path):
    (home, whole), out = undisturbed, tmp_path / "out"
    planted = """
import tensorflow as tf
from pretrain.pretraining_model import PretrainingModel
sound = PretrainingModel.loss
def loss(self, features, denominators, step, mode):
    value, sums = sound(self, features, denominators, step, mode)
    return value * tf.where(step == 8, float("nan"), 1.0), sums
PretrainingModel.loss = loss
"""
    result = changed(planted, home, out).wait()
    assert result.code == 1
    assert_refused(result, "gradient_norm is nan at step 9", "the last checkpoint is untouched")
    assert step_of(out) == 8 and np.isfinite(variables(out / "model.ckpt-8")["electra/embeddings/word_embeddings"]).all()
    assert fork_script(*pretraining_flags(home, out)).wait().code == 0
    assert_same_run(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretrain_data", "eval_data"])
def test_a_record_with_a_bit_turned_over_is_named_and_mended_costs_nothing(undisturbed, fork_script, tmp_path, kind):
    """Met by a run that goes on with its last step, and by the evaluation after it."""
    sound, whole = undisturbed
    home, out = (pathlib.Path(shutil.copytree(place, tmp_path / place.name)) for place in (sound, whole))
    checkpoint.remove(str(out / f"model.ckpt-{STEPS}"))
    path = sorted((home / "pretrain_tfrecords").glob(f"{kind}*"))[0]
    content, middle = path.read_bytes(), path.stat().st_size // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    command = pretraining_flags(home, out, "--do_eval", "--num_eval_steps=0")
    result = fork_script(*command).wait()
    assert result.code == 1
    assert_refused(result, "record ", f" of {path} is truncated or corrupt", "build the data set again")
    assert step_of(out) == (STEPS if kind == "eval_data" else STEPS - 1)
    path.write_bytes(content)
    assert fork_script(*command).wait().code == 0
    assert_same_run(out, whole)
