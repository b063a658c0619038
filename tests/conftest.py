"""Fixtures every test room shares."""

import gc
import os
import pathlib
import subprocess
import sys
import types

import pytest

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
