"""Fixtures of the model room."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import types

import pytest
from absl import logging

_PROGRAM = pathlib.Path(__file__).with_name("tiny_training.py")


@pytest.fixture(scope="session")
def tiny() -> types.ModuleType:
    """The module tiny_training.py: small models, inputs and estimators."""
    specification = importlib.util.spec_from_file_location("tiny_training", _PROGRAM)
    module = importlib.util.module_from_spec(specification)
    sys.modules["tiny_training"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start_tiny():
    """start_tiny("split", folder) -> Popen of tiny_training.py with text output, to be waited for with communicate()."""

    def start(run: str, folder: pathlib.Path, **environment: str) -> subprocess.Popen:
        arguments = [sys.executable, str(_PROGRAM), run, str(folder)]
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})

    return start


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What absl's logging.warning said, formatted."""
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda message, *arguments: lines.append(message % arguments))
    return lines
