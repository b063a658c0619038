"""Fixtures every test room shares."""

import gc
import itertools
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import types
from collections.abc import Iterator

import pytest

from tests.kills import Killed

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def freeze_garbage():
    """What TensorFlow keeps of every traced function would be looked through by each garbage collection of all later tests."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """Numbers written by the original implementation (tests/golden/README.md)."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real corpora and task files beside the checkout; they are not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.parent.name}/{folder.name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def library() -> types.SimpleNamespace:
    """torch and transformers, which are installed with the parity extra only."""
    torch = pytest.importorskip("torch", reason="the referee torch is not installed (parity extra)")
    transformers = pytest.importorskip("transformers", reason="the referee transformers is not installed (parity extra)")
    torch.set_num_threads(1)
    return types.SimpleNamespace(torch=torch, transformers=transformers)


@pytest.fixture(scope="session")
def run_script():
    """run_script("build_vocab.py", "--flag=value", ...) -> CompletedProcess with text output; check=False to look at failures."""

    def run(script: str, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
        assert not check or result.returncode == 0, f"{script} exited with {result.returncode}: {result.stderr[-3000:]}"
        return result

    return run


# Starts scripts in forked children, so that TensorFlow, which takes seconds to import, is imported once for all tests.
# Reads lines: [script, arguments, environment, file for stdout and stderr] starts one, answered with its process id; an id waits for
# that process to end, answered with its exit code, or -N after signal N.
SERVER = """
import gc, json, os, runpy, sys
import run_finetuning, run_pretraining
gc.freeze()  # or every child would go through all of TensorFlow's objects when it ends
for line in sys.stdin:
    request = json.loads(line)
    if isinstance(request, int):
        print(os.waitstatus_to_exitcode(os.waitpid(request, 0)[1]), flush=True)
        continue
    script, arguments, environment, path = request
    child = os.fork()
    if not child:
        for descriptor, name in ((1, path + ".out"), (2, path + ".err")):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
        os.environ |= environment
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        sys.exit(0)
    print(child, flush=True)
"""


class Running:
    """A script that `fork_script` started."""

    def __init__(self, server: subprocess.Popen, request: list):
        self._server, (*self._command, self._environment, self._path) = server, request
        self._files = [pathlib.Path(self._path + end) for end in (".out", ".err")]
        for file in self._files:
            file.touch()  # the process may be killed before it opens them
        self.pid = self._ask(request)
        self._descriptor = os.pidfd_open(self.pid)

    def _ask(self, request: object) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def runs(self, seconds: float = 0.0) -> bool:
        """Whether it still runs after so many seconds; does not wait longer than it does."""
        return not select.select([self._descriptor], [], [], seconds)[0]

    def kill(self, signum: int = signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self._descriptor, signum)

    def wait(self) -> types.SimpleNamespace:
        """code, out, err and last_line of how it ended."""
        code = self._ask(self.pid)
        os.close(self._descriptor)
        out, err = (file.read_text(encoding="utf-8") for file in self._files)
        if code == -signal.SIGSEGV:
            # TensorFlow does not promise to survive a fork, and once in some hundred runs it did not: only what a process of its own
            # does counts. It goes on from the last checkpoint, which changes nothing (as the tests of kills show).
            script, arguments = self._command
            command = [sys.executable, script, *arguments]
            alone = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **self._environment})
            code, out, err = alone.returncode, alone.stdout, alone.stderr
        return types.SimpleNamespace(code=code, out=out, err=err, last_line=err.rstrip("\n").rpartition("\n")[2])


@pytest.fixture(scope="session")
def fork_script(tmp_path_factory) -> Iterator:
    """fork_script("run_pretraining.py", "--flag=value", ..., NAME="environment") -> Running, to be waited for or killed."""
    folder, command = tmp_path_factory.mktemp("forked"), [sys.executable, "-c", SERVER]
    pipe, numbers = subprocess.PIPE, itertools.count()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as server:
        yield lambda script, *arguments, **environment: Running(server, [script, arguments, environment, str(folder / str(next(numbers)))])
        server.stdin.close()


@pytest.fixture(scope="session")
def pretrain(fork_script):
    """pretrain("--flag=value", ..., code=0) -> how run_pretraining.py ended: code, out, err, last_line."""

    def run(*arguments, code=0):
        result = fork_script("run_pretraining.py", *arguments).wait()
        assert result.code == code, result.err[-3000:]
        return result

    return run


@pytest.fixture
def mount(tmp_path):
    """mount("size=1m,rw") -> a folder that is a file system of its own in memory; again: the same one with other options."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system, and not in every container")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
        return folder

    yield remount
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def killed_after(monkeypatch):
    """killed_after(n): the n-th change of the file system from now on, and all after it, do not happen."""

    def arm(changes: int) -> None:
        done = [0]

        def wrap(function):
            def wrapped(*arguments, **options):
                if done[0] >= changes:
                    raise Killed
                done[0] += 1
                return function(*arguments, **options)

            return wrapped

        import tensorflow as tf  # here: most tests of this folder do without

        monkeypatch.undo()
        for name in ("rename", "remove"):
            monkeypatch.setattr(tf.io.gfile, name, wrap(getattr(tf.io.gfile, name)))
        for name in ("replace", "unlink"):  # what the state file is written with
            monkeypatch.setattr(os, name, wrap(getattr(os, name)))
        monkeypatch.setattr(tf.io.gfile.GFile, "write", wrap(tf.io.gfile.GFile.write))

    yield arm
    monkeypatch.undo()
