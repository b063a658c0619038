"""model/command.py: exit codes, one-line errors, files that appear whole or not at all."""

import concurrent.futures
import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from model import command

ROOT = pathlib.Path(command.__file__).resolve().parents[1]
PROGRAM = """
from absl import flags
from model import command

flags.DEFINE_integer("size", 1, "a number")
flags.DEFINE_boolean("do_train", True, "a switch")
flags.DEFINE_string("name", None, "the name of the thing")

class Stopped(command.UserError):
    exit_code = 143

def main():
    {body}

command.run(main)
"""


@pytest.fixture
def run_program(tmp_path):
    """run_program(body of main, *arguments) -> CompletedProcess."""

    def run(body: str, *arguments: str) -> subprocess.CompletedProcess:
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.format(body=body))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, env=environment, timeout=120)

    return run


def test_a_program_that_works_exits_with_0_and_prints_nothing_of_its_own(run_program):
    result = run_program("print(flags.FLAGS.size, flags.FLAGS.do_train)", "--size=3", "--nodo_train")
    assert (result.returncode, result.stdout, result.stderr) == (0, "3 False\n", "")


@pytest.mark.parametrize(
    "body, code",
    [
        ("raise command.UserError('size is 0 (--size)')", 2),
        ("raise command.DataError('size is 0 (--size)')", 1),
        ("raise Stopped('size is 0 (--size)')", 143),
    ],
)
def test_user_errors_are_one_line_and_an_exit_code(run_program, body, code):
    result = run_program(body)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "program.py: error: size is 0 (--size)\n")


def test_a_bug_keeps_its_traceback(run_program):
    result = run_program("raise ValueError('our fault')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: our fault" in result.stderr


def test_an_interrupt_is_no_traceback(run_program):
    result = run_program("raise KeyboardInterrupt")
    assert (result.returncode, result.stderr) == (130, "program.py: error: interrupted\n")


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--do_train", "False"], "'False'"),  # what absl reads as --do_train=True and a stray word
        (["data"], "'data'"),
        (["--siz=3"], "siz"),
        (["--size=many"], "many"),
        (["--size=1.5"], "1.5"),
        (["--do_train=maybe"], "maybe"),
    ],
)
def test_a_usage_error_is_one_line_that_quotes_the_word_and_exit_code_2(run_program, arguments, named):
    result = run_program("print('was run')", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and named in result.stderr


def test_a_required_flag_that_is_missing_is_named_with_its_help(run_program):
    result = run_program("command.required('name')")
    assert (result.returncode, result.stderr) == (2, "program.py: error: --name is required: the name of the thing\n")
    assert run_program("print(command.required('name'))", "--name=x").stdout == "x\n"


def test_write_atomically_writes_bytes_and_text_and_replaces(tmp_path):
    path = tmp_path / "file"
    command.write_atomically(str(path), "한국어\n")
    assert path.read_bytes() == "한국어\n".encode()
    command.write_atomically(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_write_atomically_leaves_the_old_file_and_nothing_else_when_it_fails(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else command.DataError) as caught:
        command.write_atomically(str(path), "new")
    assert isinstance(error, KeyboardInterrupt) or str(caught.value) == f"cannot write {str(path)!r}: No space left on device"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "[file]"
    (tmp_path / "[file].tmp-0123abcd").write_text("half")
    (tmp_path / "f.tmp-0123abcd").write_text("of another file")
    (tmp_path / "[file].tmp-backup").write_text("the user's")
    with command.open_atomically(str(path)) as file:
        file.write(b"first")
        command.write_atomically(str(path), "second")
        assert len(os.listdir(tmp_path)) == 4 and path.read_text() == "second"
    assert sorted(os.listdir(tmp_path)) == ["[file]", "[file].tmp-backup", "f.tmp-0123abcd"] and path.read_text() == "first"


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    def write(text: str) -> None:
        for _ in range(500):
            command.write_atomically(str(tmp_path / "file"), text * 1000)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(write, "abc"))
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() in ("a" * 1000, "b" * 1000, "c" * 1000)


@pytest.mark.parametrize("step", ["write", "rename"])
def test_write_atomically_elsewhere_than_on_this_machine(monkeypatch, step):
    path = f"ram://write_atomically_{step}/file.json"
    command.write_atomically(path, '"값"')
    assert command.read_json(path, "flag") == "값"

    def fail(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(*((tf.io.gfile, "rename", fail) if step == "rename" else (tf.io.gfile.GFile, "write", fail)))
    with pytest.raises(KeyboardInterrupt):
        command.write_atomically(path, "new")
    assert command.read_json(path, "flag") == "값"
    assert tf.io.gfile.listdir(f"ram://write_atomically_{step}") == ["file.json"]


def test_write_json_keeps_korean_and_takes_numpy(tmp_path):
    path = tmp_path / "file.json"
    command.write_json(str(path), {"이름": "값", "scalar": np.float32(0.5), "array": np.arange(3), "path": pathlib.PurePosixPath("a/b")})
    assert "이름" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"이름": "값", "scalar": 0.5, "array": [0, 1, 2], "path": "a/b"}
    assert command.read_json(str(path), "flag")["scalar"] == 0.5


@pytest.mark.parametrize(
    "content, word", [(None, "no file"), ("folder", "no file"), (b"{'a': 1}", "not JSON"), (b'{"a": "\xb0\xa1"}', "UTF-8")]
)
def test_read_json_names_file_and_flag(tmp_path, content, word):
    path = tmp_path / "file.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(command.UserError, match=word) as error:
        command.read_json(str(path), "hparams")
    assert str(path) in str(error.value) and "--hparams" in str(error.value)
    assert error.value.exit_code == 2


# --- locks ------------------------------------------------------------------------------------------------------------------------------


def test_a_lock_refuses_a_second_holder_and_changes_nothing_and_ends_with_the_first(tmp_path):
    path = tmp_path / "lock"
    with command.locked(str(path), "busy"):
        with pytest.raises(command.UserError, match="^busy$") as error, command.locked(str(path), "busy"):
            pass
        assert error.value.exit_code == 2
    with command.locked(str(path), "busy"):
        assert os.listdir(tmp_path) == ["lock"] and path.read_bytes() == b""


def test_a_lock_that_its_holder_removed_is_not_taken_for_one(tmp_path, monkeypatch):
    """Opened before it was removed, locked after: another process may hold the new file by then."""
    path, flock = tmp_path / "lock", fcntl.flock

    def removed(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed)
    with command.locked(str(path), "busy"), pytest.raises(command.UserError, match="busy"), command.locked(str(path), "busy"):
        pass


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def refused(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with command.locked(str(tmp_path / "lock"), "busy"), command.locked(str(tmp_path / "lock"), "busy"):
        assert "knows no locks" in caplog.text
    with command.locked("gs://bucket/lock", "busy"):
        pass


def test_a_folder_that_cannot_be_made_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(command.UserError, match=r"cannot make the folder '.*file/x': Not a directory \(--output_dir\)"):
        command.make_folder(f"{tmp_path}/file/x", "output_dir")
    with pytest.raises(command.UserError, match=r"cannot make the folder 'none://x': .*\(--model_dir\)"):
        command.make_folder("none://x", "model_dir")
    with pytest.raises(command.DataError, match="cannot write '.*file/lock': Not a directory"), command.locked(f"{tmp_path}/file/lock"):
        pass
