"""The script as a user runs it: processes, kills, exit codes."""

import hashlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.kills import kill_at_random, temporary_files

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = "build_pretraining_dataset.py"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    """Flags but --output_dir, for about 4 MB of invented text: six units of work."""
    folder = tmp_path_factory.mktemp("text")
    words = [f"낱말{number}" for number in range(200)]
    generator = np.random.default_rng(0)
    lines = [" ".join(words[i] for i in generator.integers(0, 200, size)) for size in generator.integers(2, 16, 40000)]
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text("\n".join(lines[:25000]))
    (folder / "corpus" / "b.txt").write_text("\n\n".join(lines[25000:]))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    return [
        f"--corpus_dir={folder}/corpus",
        f"--vocab_file={folder}/vocab.txt",
        "--max_seq_length=64",
        "--num_out_files=7",
        "--tokenizer_type=wordpiece",
        "--analyzer=none",
        "--eval_fraction=0.05",
    ]


@pytest.fixture(scope="module")
def reference(arguments, run_script, tmp_path_factory) -> dict[str, str]:
    """Names and check sums of what one process writes undisturbed."""
    folder = tmp_path_factory.mktemp("reference") / "out"
    run_script(SCRIPT, *arguments, f"--output_dir={folder}")
    return contents(folder)


def contents(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("processes", [2, 3])
def test_shards_do_not_depend_on_the_number_of_processes(arguments, reference, run_script, tmp_path, processes):
    result = run_script(SCRIPT, *arguments, f"--output_dir={tmp_path}/out", f"--num_processes={processes}")
    assert contents(tmp_path / "out") == reference and len(reference) == 9
    assert "tokenizing" in result.stderr and "examples to train on in 7 shards" in result.stderr
    again = run_script(SCRIPT, *arguments, f"--output_dir={tmp_path}/out")
    assert "nothing to do" in again.stderr and contents(tmp_path / "out") == reference


def stamps(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Finished units and when each was written. (Shards are written group by group; a kill redoes the group under way.)"""
    files = folder.glob("unfinished_build/unit-*.npz")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.mark.slow
def test_built_again_and_again_after_kills(arguments, reference, fork_script, tmp_path):
    out, processes = tmp_path / "out", itertools.cycle((1, 2))
    finished: dict[str, tuple[int, int]] = {}

    def start():
        nonlocal finished
        if out.exists() and not (out / "manifest.json").exists():
            assert finished.items() <= stamps(out).items()  # what was finished before is not made again
        finished = stamps(out)
        return fork_script(SCRIPT, *arguments, f"--output_dir={out}", f"--num_processes={next(processes)}")

    def assert_undisturbed() -> None:
        assert contents(out) == reference

    assert kill_at_random(start, out, assert_undisturbed, lambda: temporary_files(out)) >= 2


@pytest.mark.slow
def test_a_full_disk_costs_nothing(arguments, reference, fork_script, mount):
    for size in ("8k", "1m"):
        out = mount(f"size={size}") / "out"
        result = fork_script(SCRIPT, *arguments, f"--output_dir={out}").wait()
        assert result.code in (1, 2) and "No space left on device" in result.last_line and "Traceback" not in result.err
        assert not temporary_files(out)
        mount("size=100m")
    assert fork_script(SCRIPT, *arguments, f"--output_dir={out}").wait().code == 0
    assert contents(out) == reference


def test_workers_end_with_their_killed_parent(arguments, tmp_path):
    command = [sys.executable, str(ROOT / SCRIPT), *arguments, f"--output_dir={tmp_path}/out", "--num_processes=2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    children: list[str] = []
    deadline = time.monotonic() + 60
    while len(children) < 3 and process.poll() is None and time.monotonic() < deadline:  # two workers and a resource tracker
        time.sleep(0.05)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(children) == 3
    while any(map(_runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, children))


def _runs(pid: str) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "changes, code, message",
    [
        (["--corpus_dir="], 2, "--corpus_dir is required"),
        (["--corpus_dir=/nowhere"], 2, "no file or folder '/nowhere' (--corpus_dir)"),
        (["--vocab_file=/nowhere"], 2, "(--vocab_file)"),
        (["--max_seq_length=4"], 2, "max_seq_length must be from 5 to 65536, got 4 (--max_seq_length)"),
        (["--max_seq_length=long"], 2, "max_seq_length"),
        (["--overflow=keep"], 2, "overflow"),
        (["--unknown=1"], 2, "unknown"),
        (["--overwrite", "False"], 2, "unexpected argument 'False'"),
    ],
)
def test_usage_errors_are_one_sentence(arguments, run_script, tmp_path, changes, code, message):
    result = run_script(SCRIPT, *arguments, f"--output_dir={tmp_path}/out", *changes, check=False)
    assert result.returncode == code
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_encoding_ends_a_parallel_build(arguments, run_script, tmp_path):
    (tmp_path / "text.txt").write_bytes("낱말1 낱말2\n".encode() * 100000 + b"\xb0\xa1\n")
    flags = [*arguments, f"--corpus_dir={tmp_path}/text.txt", f"--output_dir={tmp_path}/out", "--num_processes=2"]
    result = run_script(SCRIPT, *flags, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"text.txt, line 100001, byte {16 * 100000}: not UTF-8" in result.stderr


def test_workers_do_without_tensorflow():
    """It takes longer to import than a worker needs for a million words."""
    code = "import sys, build_pretraining_dataset; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.slow
def test_real_text_with_morphemes(shared_data, run_script, tmp_path):
    pytest.importorskip("MeCab")
    syllables = [chr(code) for code in range(0xAC00, 0xD7A4)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *syllables, *("##" + syllable for syllable in syllables)]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    flags = [
        f"--corpus_dir={shared_data}/corpus/nsmc_reviews.txt.gz",
        f"--vocab_file={tmp_path}/vocab.txt",
        "--num_out_files=16",
        "--num_processes=2",
    ]
    run_script(SCRIPT, *flags, f"--output_dir={tmp_path}/out", timeout=1200)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["lines"] == 475_970
    assert 0.003 < manifest["eval"]["examples"] / manifest["train"]["examples"] < 0.008
    assert manifest["counts"]["unk_tokens"] < 0.2 * manifest["counts"]["tokens"]
