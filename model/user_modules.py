"""Code of the user's own: a Python file or module whose import makes classes known, such as corpus readers and tasks."""

import importlib
import importlib.util
import os
import sys
from types import ModuleType

from model.command import UserError


def load(module: str, flag: str) -> ModuleType:
    """Imports "my_code.py" or, from the Python path, "my_package.code"; `flag` is the flag that named it.

    A module that was imported before is not run again. Raises UserError for what cannot be imported.
    """
    try:
        if not module.endswith(".py"):
            return importlib.import_module(module)
        name = f"{flag}:{os.path.realpath(module)}"
        return sys.modules[name] if name in sys.modules else _import_file(name, module)
    except Exception as error:  # whatever the user's code does
        raise UserError(f"cannot import {module!r}: {type(error).__name__}: {error} (--{flag})") from error


def _import_file(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader  # the name ends in .py
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
