"""What happens to a run that is killed, robbed of its disk, its clock or its data, or started twice: docs/reliability.md has the table.

Each fault ends, once it is over and the same command was given again, in the bytes of a run that nothing disturbed.
"""

import hashlib
import itertools
import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
from pretraining_home import contents, flags, history, make_home, variables

from model import checkpoint

MOMENTS = 20

# --- kill -9 ---------------------------------------------------------------------------------------------------------------------------


def kill_at_random(start: Callable, folder: pathlib.Path, assert_undisturbed: Callable, is_writing: Callable, what: str) -> None:
    """Kills what `start` starts, and starts it again, MOMENTS times; then lets it finish and looks at the result.

    The moments are spread over the time of an undisturbed run, but every fourth time the kill comes as soon as `is_writing()`. Where
    the run was faster than the kill, its result is looked at and another one begins.
    """
    draws, starts, kills, kills_while_writing, results = random.Random(0), 0, 0, 0, 1
    begin = time.monotonic()
    assert start().wait().code == 0
    seconds = time.monotonic() - begin
    assert_undisturbed()
    shutil.rmtree(folder)
    while kills < MOMENTS:
        running, delay = start(), seconds * (kills + draws.random()) / MOMENTS
        if starts % 4 == 3:
            while running.runs() and not is_writing():
                pass
        else:
            running.runs(delay)
        running.kill()
        result, starts = running.wait(), starts + 1
        if result.code == -signal.SIGKILL:
            kills, kills_while_writing = kills + 1, kills_while_writing + is_writing()
        else:
            assert_finished(result)
            results += 1
            assert_undisturbed()
            shutil.rmtree(folder)
    assert_finished(start().wait())
    assert_undisturbed()
    assert kills_while_writing
    print(f"{what}: killed at {kills} moments, {kills_while_writing} of them within a write; {results + 1} results, all as undisturbed")


def assert_finished(result) -> None:
    """A vocabulary that was finished when the kill came is not built again: that is refused."""
    assert result.code == 0 or "holds vocab.txt and vocab.json already" in result.last_line, result.err[-3000:]


def sums(folder: pathlib.Path) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents(folder).items()}


def has_temporary(folder: pathlib.Path) -> bool:
    try:
        return any(".tmp-" in path.name or path.name.startswith("saving-") for path in folder.rglob("*"))
    except FileNotFoundError:  # removed while it was listed
        return False


@pytest.mark.slow
def test_a_vocabulary_built_again_and_again_after_kills(fork_script, tmp_path):
    (tmp_path / "corpus.txt").write_text(
        "".join(f"영화가 좋았습니다 {number}\n배우는 별로다\n" for number in range(5000)), encoding="utf-8"
    )
    arguments = ["build_vocab.py", f"--corpus={tmp_path}/corpus.txt", "--vocab_size=90", "--unused_size=5"]
    assert fork_script(*arguments, f"--output_dir={tmp_path}/whole").wait().code == 0
    whole, out = sums(tmp_path / "whole"), tmp_path / "out"

    def assert_undisturbed() -> None:
        found = sums(out)
        found.pop(".vocab.lock", None)  # killed when there was nothing left to do but to remove that
        assert found == whole and set(whole) == {"vocab.txt", "vocab.json"}

    kill_at_random(
        lambda: fork_script(*arguments, f"--output_dir={out}"), out, assert_undisturbed, (out / ".vocab.lock").exists, "vocabulary building"
    )


@pytest.mark.slow
def test_pretraining_data_built_again_and_again_after_kills(fork_script, tmp_path):
    words = [f"낱말{number}" for number in range(200)]
    generator = np.random.default_rng(0)
    lines = [" ".join(words[i] for i in generator.integers(0, 200, size)) for size in generator.integers(2, 16, 40000)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
    arguments = ["build_pretraining_dataset.py", f"--corpus_dir={tmp_path}/corpus.txt", f"--vocab_file={tmp_path}/vocab.txt"]
    arguments += ["--max_seq_length=64", "--num_out_files=7", "--tokenizer_type=wordpiece", "--analyzer=none", "--eval_fraction=0.05"]
    assert fork_script(*arguments, f"--output_dir={tmp_path}/whole").wait().code == 0
    whole, out = sums(tmp_path / "whole"), tmp_path / "out"

    def assert_undisturbed() -> None:
        assert sums(out) == whole and len(whole) == 9

    numbers = itertools.cycle((1, 2))
    kill_at_random(
        lambda: fork_script(*arguments, f"--output_dir={out}", f"--num_processes={next(numbers)}"),
        out,
        assert_undisturbed,
        lambda: has_temporary(out),
        "data building",
    )


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
    assert not has_temporary(folder)


def step_of(folder):
    newest = checkpoint.latest(str(folder))
    return int(newest.rpartition("-")[2]) if newest else 0


@pytest.mark.slow
def test_pretraining_again_and_again_after_kills(fork_script, tmp_path):
    home = make_home(tmp_path / "home", vocab_size=20000)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert fork_script(*pretraining_flags(home, whole)).wait().code == 0

    def start():
        if out.exists() and step_of(out):
            checkpoint.read(checkpoint.latest(str(out)), ["global_step"])  # what a kill left last is whole
        return fork_script(*pretraining_flags(home, out))

    kill_at_random(start, out, lambda: assert_same_run(out, whole), lambda: has_temporary(out), "pre-training")
    kept = {f"model.ckpt-{step}.{suffix}" for step in (STEPS - 1, STEPS) for suffix in ("index", "data-00000-of-00001")}
    assert {path.name for path in out.iterdir() if "ckpt" in path.name} == kept


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_says_so_and_goes_on(fork_script, tmp_path):
    home = make_home(tmp_path / "home")
    assert fork_script(*pretraining_flags(home, tmp_path / "whole")).wait().code == 0
    out = tmp_path / "out"
    running = fork_script(*pretraining_flags(home, out))
    while running.runs(0.002) and step_of(out) < 2:
        pass
    running.kill(signal.SIGTERM)
    result, stopped_at = running.wait(), step_of(out)
    assert result.code == 128 + signal.SIGTERM and f"stopped by SIGTERM at step {stopped_at}, checkpoint saved" in result.last_line
    assert 2 <= stopped_at < STEPS and "Traceback" not in result.err and not has_temporary(out)
    assert fork_script(*pretraining_flags(home, out)).wait().code == 0
    assert_same_run(out, tmp_path / "whole")
