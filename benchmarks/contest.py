"""Rivals timed in turns. Each is a process of its own, which prepares something once and then does it as often as it is asked.

A script calls itself with --rival=JSON for every rival. The processes that are not asked wait and take no processor time, so that all
rivals meet the same machine, round after round; medians are reported, since only ratios within one run count.
"""

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags, logging

from model import hparams
from model.command import UserError


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one repetition took."""

    wall: float  # seconds
    cpu: float  # seconds of all threads, user and system
    memory: int  # bytes, the highest so far: on the GPU where there is one, else of the process


class Rival:
    """A process that was started for `spec` by `script`."""

    def __init__(self, script: str, name: str, spec: Any):
        self.name, self.usages = name, list[Usage]()
        command = [sys.executable, script, f"--rival={json.dumps(spec)}"]
        environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # or the first would take the others' memory on a GPU
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def measure(self, times: int) -> Usage:
        """Lets it repeat `times` times; what one repetition took. UserError if its process ended."""
        assert self._process.stdin and self._process.stdout, "both are pipes"
        try:
            self._process.stdin.write(f"{times}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise UserError(f"{self.name} ended with {self._process.wait()}: see its error above (--rivals leaves it out)")
        return Usage(**json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin, "it is a pipe"
        self._process.stdin.close()
        self._process.wait()

    def summary(self) -> dict[str, Any]:
        """Medians over the rounds, the fastest round, and peak memory."""
        walls = [usage.wall for usage in self.usages]
        return {
            "name": self.name,
            "seconds": statistics.median(walls),
            "fastest": min(walls),
            "cpu_seconds": statistics.median(usage.cpu for usage in self.usages),
            "memory": self.usages[-1].memory,
            "rounds": walls,
        }


def race(script: str, specs: Mapping[str, Any], rounds: int, times: int, warm_up: int) -> list[dict[str, Any]]:
    """Summaries of the rivals `specs` (name -> what the script is told), after `warm_up` repetitions each and `rounds` rounds in turns."""
    rivals = []
    try:
        for name, spec in specs.items():
            rivals.append(Rival(script, name, spec))
            rivals[-1].measure(warm_up)  # one after the other: compilation wants all cores
            logging.info("%s is ready", name)
        for number in range(rounds):
            for rival in rivals:
                rival.usages.append(rival.measure(times))
            logging.info(
                "round %d of %d: %s", number + 1, rounds, ", ".join(f"{rival.name} {rival.usages[-1].wall:.4f} s" for rival in rivals)
            )
        return [rival.summary() for rival in rivals]
    finally:
        for rival in rivals:
            rival.close()


def define_flags(config_class: type, skip: Sequence[str], rounds: int) -> None:
    """The flags that all races have."""
    flags.DEFINE_integer("rounds", rounds, "rounds in turns, of which the median counts", lower_bound=1)
    flags.DEFINE_string("rival", None, "what one of the timed processes is to be; set by the script itself")
    define_settings(config_class, skip)


def define_settings(config_class: type, skip: Sequence[str]) -> None:
    """The flags that all benchmarks of a configuration have: where to write, and its fields."""
    flags.DEFINE_string("output_dir", None, "folder for the results")
    flags.DEFINE_string("hparams", None, "JSON object or JSON file with settings")
    hparams.define_flags(config_class, skip=skip)


def chosen(flag: str, allowed: Mapping[str, Any]) -> list[str]:
    """The names that --`flag` lists; UserError for one that is not among `allowed`."""
    names: list[str] = getattr(flags.FLAGS, flag)
    for name in names:
        if name not in allowed:
            raise UserError(f"there is no {name!r}; allowed: {', '.join(allowed)} (--{flag})")
    return names


def answer(repeat: Callable[[int], Any]) -> None:
    """The other side: calls `repeat(times)` for every number on stdin and says what that took."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        times = int(line)
        cpu, start = _cpu_seconds(), time.perf_counter()
        repeat(times)
        wall, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
        print(json.dumps(dataclasses.asdict(Usage(wall / times, cpu / times, _peak_memory()))), file=out, flush=True)


def _peak_memory() -> int:
    torch, tensorflow = sys.modules.get("torch"), sys.modules.get("tensorflow")
    if torch and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if tensorflow and tensorflow.config.list_physical_devices("GPU"):
        return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *others])
