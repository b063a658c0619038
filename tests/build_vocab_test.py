import gzip
import itertools
import re

import pytest

from tests.kills import kill_at_random, temporary_files

CORPUS = "".join(
    f"{subject} {verb} {number}\n"
    for number in range(100)
    for subject in ("영화가", "배우는", "결말은", "음악도")
    for verb in ("좋았습니다.", "재미있어요", "별로다")
)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "reviews.txt"
    path.write_text(CORPUS, encoding="utf-8")
    return path


def _read(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_script_writes_a_vocabulary_and_says_how_good_it_is(run_script, corpus, tmp_path):
    flags = ["--vocab_size=90", "--unused_size=5", "--num_processes=2", f"--output_dir={tmp_path}/out"]
    result = run_script("build_vocab.py", f"--corpus={corpus}", *flags)
    assert re.search(r"out/vocab.txt: 90 entries; on \d+ lines held back: \d.\d+ pieces per eojeol, 0 % of eojeols with", result.stdout)
    assert list(_read(tmp_path / "out")) == ["vocab.json", "vocab.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--corpus is required"),
        (["--corpus={corpus}"], "--output_dir is required"),
        (["--corpus={corpus}", "--output_dir={out}", "--vocab_size=505"], "vocab_size 505 leaves no room"),
        (["--corpus={corpus}", "--output_dir={out}", "--overwrite", "False"], "unexpected argument 'False'"),
        (["--corpus={corpus}", "--output_dir={out}", "--analyzer=twitter"], "analyzer"),
        (["--corpus={out}", "--output_dir={out}"], "no file or folder"),
    ],
)
def test_usage_errors_are_one_sentence(run_script, corpus, tmp_path, arguments, message):
    filled = [argument.format(corpus=corpus, out=tmp_path / "out") for argument in arguments]
    result = run_script("build_vocab.py", *filled, check=False)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_damaged_text_is_exit_code_1(run_script, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"ok\n\xff\n")
    result = run_script("build_vocab.py", f"--corpus={tmp_path}/bad.txt", f"--output_dir={tmp_path}/out", check=False)
    assert result.returncode == 1 and "bad.txt, line 2, byte 3" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_built_again_and_again_after_kills(fork_script, tmp_path):
    (tmp_path / "corpus.txt").write_text(CORPUS * 5, encoding="utf-8")
    command, out = ["build_vocab.py", f"--corpus={tmp_path}/corpus.txt", "--vocab_size=90", "--unused_size=5"], tmp_path / "out"
    assert fork_script(*command, f"--output_dir={tmp_path}/whole").wait().code == 0

    def assert_undisturbed() -> None:
        (out / ".vocab.lock").unlink(missing_ok=True)  # killed when there was nothing left to do but that
        assert _read(out) == _read(tmp_path / "whole")

    def writing() -> set[int]:
        try:
            return {(out / ".vocab.unfinished").stat().st_ino}
        except FileNotFoundError:
            return set()

    kill_at_random(lambda: fork_script(*command, f"--output_dir={out}"), out, assert_undisturbed, writing)


@pytest.mark.slow
def test_a_full_or_write_protected_disk_costs_nothing(fork_script, corpus, mount, tmp_path):
    command = ["build_vocab.py", f"--corpus={corpus}", "--vocab_size=90", "--unused_size=5"]
    assert fork_script(*command, f"--output_dir={tmp_path}/whole").wait().code == 0
    for options in ("size=4k", "size=4k,ro"):
        out = mount(options) / "out"
        result = fork_script(*command, f"--output_dir={out}").wait()
        assert result.code in (1, 2) and result.last_line.startswith("build_vocab.py: error: cannot ") and "Traceback" not in result.err
        assert not temporary_files(out)
        mount("size=1m,rw")
    assert fork_script(*command, f"--output_dir={out}").wait().code == 0
    assert _read(out) == _read(tmp_path / "whole")


@pytest.mark.slow
def test_vocabulary_of_real_reviews(run_script, shared_data, tmp_path):
    with gzip.open(shared_data / "corpus" / "nsmc_reviews.txt.gz", "rt", encoding="utf-8") as file:
        (tmp_path / "reviews.txt").write_text("".join(itertools.islice(file, 10000)), encoding="utf-8")
    outputs = []
    for processes in (1, 2):
        folder = tmp_path / f"out{processes}"
        arguments = [f"--corpus={tmp_path}/reviews.txt", "--vocab_size=8000", f"--num_processes={processes}", f"--output_dir={folder}"]
        run_script("build_vocab.py", *arguments)
        outputs.append(_read(folder))
    assert outputs[0] == outputs[1]
    rows = outputs[0]["vocab.txt"].decode("utf-8").split("\n")[:-1]
    assert len(rows) == len(set(rows)) == 8000


def test_help_lists_the_flags(run_script):
    assert "--vocab_size: entries of the vocabulary" in run_script("build_vocab.py", "--help", check=False).stdout
