"""The script as a user runs it."""

import pathlib
import subprocess
import sys

import pytest

from pretrain.dataset_builder import DatasetConfig, build

SCRIPT = "inspect_dataset.py"
ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "그", "##는", "심각", "##합니다", ".", "비", "##가", "와요"]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    (folder / "corpus.txt").write_text("그는 심각합니다.\n비가 와요.\n\n" * 60)
    config = DatasetConfig(
        corpus_dir=str(folder / "corpus.txt"),
        vocab_file=str(folder / "vocab.txt"),
        output_dir=str(folder / "pretrain_tfrecords"),
        max_seq_length=16,
        num_out_files=3,
        tokenizer_type="wordpiece",
        analyzer="none",
        eval_fraction=0,
    )
    build(config)
    return folder


def test_a_pipe_gets_text_without_colors(data, run_script):
    plain = run_script(SCRIPT, f"--data={data}", "--num_examples=2").stdout
    assert plain.startswith(f"example 0: record 0 of {data}/pretrain_tfrecords/pretrain_data.tfrecord-00000-of-00003, from byte 0\n")
    assert plain.count("masking: ") == 2 and "\x1b" not in plain


def test_check_passes_and_fails_with_the_record_named(data, run_script, tmp_path):
    sound = run_script(SCRIPT, f"--data={data}", "--check", "--num_processes=2")
    assert sound.stdout.endswith("every record is sound\n") and "checking: 100%" in sound.stderr
    damaged = tmp_path / "pretrain_data.tfrecord-00000-of-00003"
    damaged.write_bytes((data / "pretrain_tfrecords" / damaged.name).read_bytes()[:-1])
    failed = run_script(SCRIPT, f"--data={damaged}", f"--vocab_file={data}/vocab.txt", "--check", check=False)
    last = failed.stderr.splitlines()[-1]
    assert failed.returncode == 1 and last.startswith(f"inspect_dataset.py: error: record 20 of {damaged}, from byte ")
    assert "it is cut off: the file ends at byte" in last and "Traceback" not in failed.stderr


def test_a_closed_pipe_ends_quietly(data):
    command = f"{sys.executable} {ROOT / SCRIPT} --data={data} --num_examples=20 | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.startswith("example 0: ") and "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr


def test_what_the_user_can_mend_has_code_2(run_script):
    nothing = run_script(SCRIPT, "--check", check=False)
    assert nothing.returncode == 2 and nothing.stderr.splitlines()[-1].startswith("inspect_dataset.py: error: --data is required")
