"""Fuzzes every reader of files and requests: the tests of tests/fuzzing, with input that atheris steers by the code it reaches.

    pip install '.[fuzz,dev,serve,torch]'
    python benchmarks/fuzzing.py --seconds=120                      # every target in turn; a table, and results.json in OUTPUT_DIR
    python benchmarks/fuzzing.py --seconds=600 --target=corpus      # one

What it finds lies in OUTPUT_DIR as TARGET-crash-..., TARGET-timeout-... or TARGET-oom-..., and is tried again by
--target=TARGET --input=FILE. Needs Python 3.11 to 3.13, for which atheris has wheels.
"""

import importlib
import os
import re
import subprocess
import sys
from typing import Any

from absl import flags

from model import command
from model.command import DataError, UserError

TIMEOUT, MEMORY_MB = 120, 6000  # seconds for one input; what the process may hold, TensorFlow and torch included
MAX_BYTES = 8192  # of what hypothesis makes one input from
PACKAGES = ["model", "pretrain", "finetune", "export", "server", "configure_finetuning", "configure_pretraining"]


def main() -> None:
    names = flags.FLAGS.target or _target_names()
    if flags.FLAGS.worker or flags.FLAGS.input:
        _fuzz(names[0])
    os.makedirs(flags.FLAGS.output_dir, exist_ok=True)
    rows = [_run(name) for name in names]
    command.write_json(os.path.join(flags.FLAGS.output_dir, "results.json"), rows)
    if failed := [row["target"] for row in rows if row["exit_code"]]:
        raise DataError(f"faults in {', '.join(failed)}: see {flags.FLAGS.output_dir}")


def _target_names() -> list[str]:
    with open(os.path.join(_ROOT, "tests", "fuzzing", "hostile_input_test.py"), encoding="utf-8") as file:
        return re.findall(r"^def test_(\w+)", file.read(), re.MULTILINE)


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _run(name: str) -> dict[str, Any]:
    """One target in a process of its own: what libFuzzer finds ends the process."""
    arguments = [f"--target={name}", f"--seconds={flags.FLAGS.seconds}", f"--output_dir={flags.FLAGS.output_dir}", "--worker"]
    path = os.pathsep.join([_ROOT, *sys.path])
    with open(os.path.join(flags.FLAGS.output_dir, f"{name}.log"), "w+b") as log:
        done = subprocess.run([sys.executable, __file__, *arguments], stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})
        log.seek(0)
        text = log.read().decode("utf-8", "replace")
    numbers = {key: int((re.findall(pattern, text) or [0])[-1]) for key, pattern in _STATISTICS.items()}
    row = {"target": name, "exit_code": done.returncode, **numbers}
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


_STATISTICS = {
    "executions": r"stat::number_of_executed_units: +(\d+)",
    "whole_inputs": r"whole inputs: (\d+)",
    "branches": r"cov: (\d+)",
    "peak_mb": r"stat::peak_rss_mb: +(\d+)",
}


def _fuzz(name: str) -> None:
    """Never returns."""
    try:
        import atheris
    except ImportError as error:
        raise UserError(f"this needs `pip install '.[fuzz]'` ({error})") from error
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with atheris.instrument_imports(include=PACKAGES, enable_loader_override=False):
        tests = importlib.import_module("tests.fuzzing.hostile_input_test")
    try_one = getattr(tests, f"test_{name}").hypothesis.fuzz_one_input
    whole = 0

    def count(data: bytes) -> None:
        nonlocal whole
        whole += try_one(data) is not None  # None: too few bytes for an input
        if whole % 100 == 0:
            print(f"whole inputs: {whole}", flush=True)

    place = os.path.join(flags.FLAGS.output_dir, f"{name}-")
    limits = [f"-max_total_time={flags.FLAGS.seconds}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={MAX_BYTES}"]
    inputs = [flags.FLAGS.input] if flags.FLAGS.input else []
    atheris.Setup([sys.argv[0], *limits, "-len_control=0", "-print_final_stats=1", f"-artifact_prefix={place}", *inputs], count)
    atheris.Fuzz()


if __name__ == "__main__":
    flags.DEFINE_integer("seconds", 60, "time for each target", lower_bound=1)
    flags.DEFINE_list("target", None, "targets: the tests of tests/fuzzing/hostile_input_test.py without test_ (default: all)")
    flags.DEFINE_string("output_dir", "runs/fuzzing", "folder for results.json, logs and what is found")
    flags.DEFINE_string("input", None, "a file that was found: it alone is tried")
    flags.DEFINE_boolean("worker", False, "used by the script itself")
    command.run(main)
