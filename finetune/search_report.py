"""What a search has found: its trials as a table and as a picture."""

import dataclasses
import datetime
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.command import write_atomically


@dataclasses.dataclass(frozen=True)
class SearchTrial:
    """A finished trial. number: from 1. scores: on dev, one for each evaluation. repeats: the earlier trial whose parameters it has."""

    number: int
    params: Mapping[str, Any]
    state: str  # complete, pruned or diverged
    scores: Sequence[float]
    seconds: float
    note: str = ""
    repeats: int | None = None

    @property
    def score(self) -> float | None:
        """The highest score on dev; None where training diverged before the first evaluation."""
        return max(self.scores, default=None)

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "score": self.score}


def best_of(trials: Sequence[SearchTrial]) -> SearchTrial | None:
    """The complete trial with the highest score, the first of equals; None if there is none."""
    return max((trial for trial in trials if trial.state == "complete"), key=lambda trial: max(trial.scores), default=None)


def table(trials: Sequence[SearchTrial], names: Sequence[str]) -> list[str]:
    """A line for each trial under a header: parameters, score on dev, what became of it, and time."""
    rows = [("trial", *names, "dev", "time", "state")]
    for trial in trials:
        score = "-" if trial.score is None else f"{trial.score:.2f}"
        time = str(datetime.timedelta(seconds=round(trial.seconds)))
        rows.append((str(trial.number), *(_text(trial.params[name]) for name in names), score, time, _state(trial)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([*map(str.rjust, row[:-1], widths), row[-1]]) for row in rows]


def _state(trial: SearchTrial) -> str:
    state = f"{trial.state} after {len(trial.scores)} evaluations" if trial.state == "pruned" else trial.state
    return f"{state}, as trial {trial.repeats}" if trial.repeats else state


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def draw(trials: Sequence[SearchTrial], space: Mapping[str, Sequence[Any]], metric: str, path: str) -> None:
    """Draws the scores as a PNG: trial after trial with the best so far, and over the values of each searched setting."""
    searched = [name for name, choices in space.items() if len(choices) > 1]
    columns = min(3, 1 + len(searched))
    rows = math.ceil((1 + len(searched)) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.6 * rows), layout="constrained")
    shown = [trial for trial in trials if trial.score is not None]
    axes = figure.add_subplot(rows, columns, 1)
    _draw_history(axes, trials, shown)
    axes.set_ylabel(f"{metric} on dev")
    for position, name in enumerate(searched, 2):
        panel = figure.add_subplot(rows, columns, position, sharey=axes)
        _scatter(panel, shown, [space[name].index(trial.params[name]) for trial in shown])
        panel.set_xticks(range(len(space[name])), [_text(value) for value in space[name]])
        panel.set(title=name, xlim=(-0.5, len(space[name]) - 0.5))
    for panel in figure.axes:
        panel.grid(alpha=0.3)
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_atomically(path, image.getvalue())


def _draw_history(axes: Axes, trials: Sequence[SearchTrial], shown: Sequence[SearchTrial]) -> None:
    _scatter(axes, shown, [trial.number for trial in shown])
    best = [(trial.number, max(found.scores)) for trial in trials if (found := best_of(trials[: trial.number]))]
    axes.step([number for number, _ in best], [score for _, score in best], where="post", color="tab:green", label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="trials", xlabel="trial")
    axes.legend(fontsize="small")


def _scatter(axes: Axes, trials: Sequence[SearchTrial], positions: Sequence[float]) -> None:
    """A mark for each trial at its score; stopped ones are crosses, with the highest score that they reached."""
    for stopped, marker, color, label in ((False, "o", "tab:blue", "complete"), (True, "x", "tab:gray", "stopped")):
        points = [(x, trial.score) for x, trial in zip(positions, trials, strict=True) if (trial.state != "complete") == stopped]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, marker=marker, color=color, s=28, alpha=0.7, label=label)
