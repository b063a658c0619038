"""benchmark.html: the benchmark table with plots, and each task's scores label by label."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from finetune.benchmark import DETAILS, TITLES, TaskScore, detail_rows, notes, table_rows
from pretrain.html_page import BLUE, GREY, page, picture, table, text

_STYLE = """
.confusion td, .confusion th { text-align: right; border: 1px solid #e4e7eb; }
.ours td { font-weight: 600; background: #eaf2fb; }
.labels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
"""


def render(value: Mapping[str, Any]) -> str:
    """Returns the page. `value`: see Benchmark.describe."""
    header, *rows = table_rows(value)
    cells = [[text(cell.replace("**", "")) for cell in row] for row in rows]
    details = [[text(cell) for cell in row] for row in detail_rows(value)]
    body = [
        f"<h1>Korean benchmark: {text(value['model'])}</h1>",
        table([text(cell) for cell in header], cells, numbers=len(header) - 1, totals=[len(cells) - 1]),
        "<ul>" + "".join(f"<li>{text(note)}</li>" for note in notes(value)) + "</ul>",
        "<h2>Beside the published scores</h2>",
        '<div class="plots">' + "".join(_scores_plot(score, value["published"]) for score in value["tasks"]) + "</div>",
        '<p class="note">Dots: one seed each. Line: 95 % bootstrap interval of the mean. Grey: published.</p>',
        "<h2>Details</h2>",
        table(DETAILS, details, numbers=len(DETAILS) - 3),
        '<div class="plots">' + _time_plot(value["tasks"]) + "</div>",
        "<h2>Label by label</h2>",
        *map(_labels, filter(lambda score: score.report, value["tasks"])),
    ]
    return page(f"Korean benchmark: {value['model']}", body, _STYLE)


def _scores_plot(score: TaskScore, published: Mapping[str, Mapping[str, float]]) -> str:
    others = {model: scores[score.task] for model, scores in published.items() if score.task in scores}
    names = [*others, "ours"]
    place = len(others)

    def draw(axes: Axes) -> None:
        axes.plot(list(others.values()), range(place), "o", color=GREY)
        axes.plot(list(score.scores.values()), [place] * len(score.scores), "o", color=BLUE, markersize=4, alpha=0.6)
        axes.plot(score.summary["mean"], place, "D", color=BLUE)
        if score.summary["interval"]:
            axes.plot(score.summary["interval"], [place] * 2, color=BLUE)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(place + 0.6, -0.6)
        axes.grid(axis="x", color="#e4e7eb")
        axes.margins(x=0.1)
        # The metric alone: a task of the user's own may have a Korean name, which matplotlib's font cannot show.
        axes.set_xlabel(f"{score.title} {score.metric}" if score.task in TITLES else score.metric)

    words = ", ".join(f"{model} {value:.2f}" for model, value in others.items())
    return picture(draw, f"{score.title}, {score.metric}: ours {score.cell()}" + (f"; {words}" if words else ""))


def _time_plot(scores: Sequence[TaskScore]) -> str:
    minutes = [score.seconds / 60 for score in scores]

    def draw(axes: Axes) -> None:
        drawn = axes.barh(range(len(scores)), minutes, color=BLUE)
        axes.bar_label(drawn, [f"{value:.1f}" for value in minutes], padding=3, fontsize=8)
        axes.set_yticks(range(len(scores)), [score.title if score.task in TITLES else f"task {i}" for i, score in enumerate(scores, 1)])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("minutes per seed")

    return picture(
        draw, "minutes per seed: " + ", ".join(f"{score.title} {value:.1f}" for score, value in zip(scores, minutes, strict=True))
    )


def _labels(score: TaskScore) -> str:
    report = score.report or {}
    metrics = ("precision", "recall", "f1")
    rows = [[text(label), *(f"{found[name]:.2f}" for name in metrics), f"{found['rows']:,}"] for label, found in report["labels"].items()]
    parts = [table(["label", *metrics, "rows"], rows, numbers=4)]
    if "confusion" in report:
        parts.append(_confusion(list(report["labels"]), report["confusion"], report["trials"]))
    return f'<h3>{text(score.title)}</h3><div class="labels">{"".join(parts)}</div>'


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]], trials: int) -> str:
    """Each cell the darker the greater its share of the row."""
    head = "".join(f"<th>{text(label)}</th>" for label in labels)
    lines = []
    for label, row in zip(labels, counts, strict=True):
        shares = [count / max(1, sum(row)) for count in row]
        cells = "".join(
            f'<td style="background:rgba(47,109,179,{0.6 * share:.2f})">{count:,}</td>' for count, share in zip(row, shares, strict=True)
        )
        lines.append(f"<tr><th>{text(label)}</th>{cells}</tr>")
    title = f"is ↓ taken for → ({trials} seeds)" if trials > 1 else "is ↓ taken for →"
    return f'<div class="wide confusion"><table><thead><tr><th>{title}</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
