"""kill -9 at random moments, for the tests of every script that must go on afterwards as if nothing had been. See docs/reliability.md."""

import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable

MOMENTS = 20


def kill_at_random(start: Callable, folder: pathlib.Path, assert_undisturbed: Callable, writing: Callable[[], set]) -> int:
    """Kills what `start` starts, and starts it again, MOMENTS times; then lets it finish. Returns how many kills fell into a write.

    The moments are spread over the time of an undisturbed run, but every fourth time the kill comes as soon as `writing()`, the
    files of writes that have not ended, has a new one. Where the run was faster than the kill, its result is looked at and another begins.
    """
    draws, starts, kills, kills_while_writing, results = random.Random(0), 0, 0, 0, 1
    begin = time.monotonic()
    assert start().wait().code == 0
    seconds = time.monotonic() - begin
    assert_undisturbed()
    shutil.rmtree(folder)
    while kills < MOMENTS:
        left = writing()  # by the last kill
        running, delay = start(), seconds * (kills + draws.random()) / MOMENTS
        if starts % 4 == 3:
            while running.runs() and not writing() - left:
                pass
        else:
            running.runs(delay)
        running.kill()
        result, starts = running.wait(), starts + 1
        if result.code == -signal.SIGKILL:
            kills, kills_while_writing = kills + 1, kills_while_writing + bool(writing() - left)
        else:
            assert_finished(result)
            results += 1
            assert_undisturbed()
            shutil.rmtree(folder)
    assert_finished(start().wait())
    assert_undisturbed()
    print(f"killed at {kills} moments, {kills_while_writing} of them within a write; {results + 1} results, all as undisturbed")
    return kills_while_writing


def assert_finished(result) -> None:
    """A vocabulary that was finished when the kill came is not built again: that is refused."""
    assert result.code == 0 or "holds vocab.txt and vocab.json already" in result.last_line, result.err[-3000:]


def temporary_files(folder: pathlib.Path) -> set[tuple[pathlib.Path, int]]:
    """What a write that has not ended has made so far: names, each with the number of its file."""
    try:
        paths = [path for path in folder.rglob("*") if ".tmp-" in path.name or path.name.startswith("saving-")]
        return {(path, path.stat().st_ino) for path in paths}
    except FileNotFoundError:  # removed while it was listed
        return set()


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may get in its way."""
