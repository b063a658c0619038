"""Times a pre-training process from its start to its first and second step: ours and transformers on PyTorch, in turns.

    python benchmarks/startup.py --output_dir=work/startup

Flags as for benchmarks/pretraining_step.py. A process is started anew for every round. Writes startup.json and prints a table.
"""

import json
import os
import statistics
import subprocess
import sys
import time

from absl import flags

from benchmarks import contest
from configure_pretraining import PretrainingConfig
from model import command, hparams
from model.command import UserError, write_json

RIVALS = ("ours-bfloat16", "ours-float32", "torch-bfloat16", "compiled-bfloat16")
_SCRIPT_FLAGS = ("model_name", "data_dir", "precision")
_PHASES = ("imports and building", "first step", "second step")


def measure(spec: str) -> list[float]:
    """Seconds of the phases in a new process."""
    start = time.time()
    command_line = [sys.executable, __file__, f"--rival={spec}"]
    found = subprocess.run(command_line, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise UserError(f"the process of {spec} ended with {found.returncode}: see its error above (--rivals leaves it out)")
    moments = [start, *json.loads(found.stdout.splitlines()[-1])]
    return [after - before for before, after in zip(moments, moments[1:], strict=False)]


def be_rival(spec: str) -> None:
    """What a timed process does: two steps, and the moments at which it was ready, and each step done, on stdout."""
    from benchmarks.pretraining_step import make_rival

    repeat = make_rival(json.loads(spec))
    moments = [time.time()]
    for _ in range(2):
        repeat(1)
        moments.append(time.time())
    print(json.dumps(moments))


def main() -> None:
    if flags.FLAGS.rival:
        be_rival(flags.FLAGS.rival)
        return
    from benchmarks import pretraining_step

    output_dir = command.required("output_dir")
    settings = hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    names = contest.chosen("rivals", pretraining_step.RIVALS)
    specs = {name: json.dumps({**pretraining_step.RIVALS[name], "settings": settings}) for name in names}
    rounds = [{name: measure(spec) for name, spec in specs.items()} for _ in range(flags.FLAGS.rounds)]
    rows = []
    for name in specs:
        phases = [statistics.median(each) for each in zip(*(found[name] for found in rounds), strict=True)]
        rows.append((name, *(f"{seconds:.1f} s" for seconds in phases), f"{phases[0] + phases[1]:.1f} s"))
    print(contest.table([("process", *_PHASES, "start to first step"), *rows]))
    os.makedirs(output_dir, exist_ok=True)
    write_json(os.path.join(output_dir, "startup.json"), {"settings": settings, "phases": _PHASES, "rounds": rounds})


def define_flags() -> None:
    flags.DEFINE_list("rivals", list(RIVALS), "whom to time")
    contest.define_flags(PretrainingConfig, _SCRIPT_FLAGS, rounds=3)


if __name__ == "__main__":
    define_flags()
    command.run(main)
