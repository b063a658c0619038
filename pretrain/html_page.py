"""Pages that people look at: one HTML file without scripts or anything from the network, for a phone, a desktop and a printer.

Every text must go through `text`; pictures hold no Hangul, because matplotlib's font has none.
"""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, GREY = "#2f6db3", "#9aa5b1"
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: #1f2933; background: #fff; line-height: 1.5; overflow-wrap: anywhere;
  font-family: system-ui, -apple-system, "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic", NanumGothic, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 2px solid #d5dbe1; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul { margin: .4rem 0; }
.note { color: #52606d; font-size: .875rem; }
.warnings { border: 1px solid #d98e04; border-left-width: 6px; background: #fff8e6; padding: .6rem 1rem; border-radius: 4px; }
.fine { border: 1px solid #3c8d40; border-left-width: 6px; background: #f0f8f0; padding: .6rem 1rem; border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e4e7eb; text-align: left; vertical-align: top; }
.wide th, .wide td { overflow-wrap: normal; }
.wide td:not(.number) { min-width: 8rem; }
.wide tr > :first-child { position: sticky; left: 0; background: #fff; }
.wide thead tr > :first-child, .wide .total > :first-child { background: #f5f7fa; }
thead th { background: #f5f7fa; vertical-align: bottom; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead .number { white-space: normal; }
.total td, .total th { font-weight: 600; background: #f5f7fa; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .5rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; }
code { font-size: .85em; }
@media print { body { max-width: none; padding: 0; font-size: 9pt; } .wide { overflow: visible; } table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; } h2, h3, .rule { break-after: avoid; } .plots, tr { break-inside: avoid; }
  .plots { grid-template-columns: repeat(3, 1fr); } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """The whole document. `title`: plain text; `body`: HTML; `style`: CSS beside the common one."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
    head += f"<style>{_STYLE}{style}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def text(value: Any) -> str:
    """Anything as HTML text."""
    return escape(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0, totals: Sequence[int] = ()) -> str:
    """A table of HTML cells; the last `numbers` columns are aligned to the right, the rows at the places `totals` stand out."""
    texts = len(head) - numbers

    def line(row: Sequence[str], tag: str) -> str:
        return "".join(f'<{tag} class="number">{cell}</{tag}>' if i >= texts else f"<{tag}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = [f'<tr class="total">{line(row, "td")}</tr>' if i in totals else f"<tr>{line(row, 'td')}</tr>" for i, row in enumerate(rows)]
    return f'<div class="wide"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def picture(draw: Callable[[Axes], None], words: str, size: tuple[float, float] = (4.4, 2.7)) -> str:
    """An SVG within the page, `words` for those who cannot see it."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": words}):  # otherwise its ids are random
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    return f'<figure><img alt="{text(words)}" src="data:image/svg+xml;base64,{data}"></figure>'
