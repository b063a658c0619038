"""report.html: what preprocess.py kept, removed and changed.

`render` gets the report as corpus_report.py stores it: what must be hidden is hidden already.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pretrain.cleaning import RULES
from pretrain.html_page import BLUE, page, picture, table, text

_DESCRIPTIONS = {rule.name: rule.description for rule in RULES}
_STYLE = """
.bar { display: inline-block; width: 5rem; height: .7rem; background: #e4e7eb; border-radius: 2px; margin-left: .4rem; }
.bar i { display: block; height: 100%; background: #2f6db3; border-radius: 2px; }
.pair { border: 1px solid #e4e7eb; border-radius: 4px; margin: .4rem 0; font-size: .9rem; }
.pair div { padding: .3rem .6rem .3rem 4.2rem; position: relative; }
.pair div + div { border-top: 1px solid #e4e7eb; }
.pair b { position: absolute; left: .6rem; font-weight: 400; color: #7b8794; font-size: .8rem; }
del { background: #fbd5d5; text-decoration: none; border-radius: 2px; }
ins { background: #cdeccf; text-decoration: none; border-radius: 2px; }
.signs { display: flex; flex-wrap: wrap; gap: .35rem; padding: 0; list-style: none; }
.signs li { border: 1px solid #d5dbe1; border-radius: 4px; padding: .1rem .45rem; font-size: .85rem; }
@media print { .pair { break-inside: avoid; } .bar { display: none; } }
"""


def render(report: Mapping[str, Any]) -> str:
    """Returns the page. `report`: see corpus_report.write_report."""
    corpora = report["corpora"]
    body = [
        "<h1>Corpus report</h1>",
        _warnings(report["warnings"]),
        "<h2>What is left</h2>",
        _summary(corpora),
        *(_corpus(name, corpus) for name, corpus in corpora.items()),
        "<h2>Output files</h2>",
        _outputs(report["outputs"]),
        "<h2>Settings</h2>",
        table(["setting", "value"], [[text(key), text(_setting(value))] for key, value in report["settings"].items()]),
    ]
    return page("Corpus report", body, _STYLE)


def _setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return '<div class="fine">Nothing here asks for action; still look at the examples.</div>'
    items = "".join(f"<li>{text(warning)}</li>" for warning in warnings)
    return f'<div class="warnings"><strong>Look at this before you train</strong><ul>{items}</ul></div>'


# ---- tables


_STEPS = (
    "read",
    "dropped by cleaning",
    "exact duplicates",
    "near duplicates",
    "test texts",
    "not in the mixture",
    "kept",
    "sentences kept",
)


def _summary(corpora: Mapping[str, Any]) -> str:
    """A row for each corpus, and sums for each group of several and for all of them."""
    rows, totals = [], []
    groups = dict.fromkeys(corpus["group"] for corpus in corpora.values())
    for group in groups:
        members = {name: _counts(corpus) for name, corpus in corpora.items() if corpus["group"] == group}
        rows += [_summary_row(text(name), counts) for name, counts in members.items()]
        if len(members) > 1 and len(groups) > 1:
            totals.append(len(rows))
            rows.append(_summary_row(f"all of {text(group)}", _sum(members.values())))
    if len(corpora) > 1:
        totals.append(len(rows))
        rows.append(_summary_row("all", _sum(map(_counts, corpora.values()))))
    head = ["corpus", "MB read", "MB kept", "share kept", *_STEPS]
    note = (
        "MB are those of the text as it was read and as it was written. The numbers behind them count documents, in the order of "
        "the steps; those dropped by cleaning and those found in test files are single texts, of which a document may hold several."
    )
    return table(head, rows, numbers=len(head) - 1, totals=totals) + f'<p class="note">{note}</p>'


def _counts(corpus: Mapping[str, Any]) -> list[int]:
    """The numbers under _STEPS, then the bytes read and kept."""
    duplicates = corpus.get("duplicates", {})
    return [
        corpus["read"]["documents"],
        sum(rule["dropped"] for rule in corpus["rules"].values()),
        *(duplicates.get(kind, {}).get("documents", 0) for kind in ("exact", "near")),
        sum(sum(counts.values()) for counts in corpus.get("excluded", {}).values()),
        corpus.get("mixture", {}).get("dropped_documents", 0),
        corpus["kept"]["documents"],
        corpus["kept"]["sentences"],
        corpus["read"]["bytes"],
        corpus["kept"]["bytes"],
    ]


def _sum(counts: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def _summary_row(name: str, counts: Sequence[int]) -> list[str]:
    *steps, read, kept = counts
    share = kept / max(1, read)
    bar = f'<span class="bar"><i style="width:{min(100, 100 * share):.0f}%"></i></span>'
    return [name, _megabytes(read), _megabytes(kept), f"{share:.1%}{bar}", *(f"{number:,}" for number in steps)]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 50_000 else f"{size / 1e6:.3f}"


def _outputs(outputs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [text(file["file"]), f"<code>{text(file['sha256'][:16])}</code>", *(f"{file[name]:,}" for name in ("documents", "sentences"))]
        + [_megabytes(file["bytes"])]
        for file in outputs
    ]
    return table(["file", "SHA-256 begins", "documents", "sentences", "MB"], rows, numbers=3)


# ---- a corpus


def _corpus(name: str, corpus: Mapping[str, Any]) -> str:
    files = corpus["files"]
    size = _megabytes(sum(file["bytes"] for file in files))
    about = (
        f"Read as {corpus['reader']} from {len(files):,} file(s) of {size} MB, {corpus['read']['texts']:,} texts; group {corpus['group']}."
    )
    parts = [f"<h2>{text(name)}</h2>", f'<p class="note">{text(about)}</p>', _plots(name, corpus), _rules(corpus), _excluded(corpus)]
    return "\n".join([*parts, _unusual(corpus["statistics"]["unusual"]), _examples(corpus)])


def _rules(corpus: Mapping[str, Any]) -> str:
    if not corpus["rules"]:
        return "<p>Cleaning changed nothing.</p>"
    texts = max(1, corpus["read"]["texts"])
    rows = [
        [text(rule), text(_DESCRIPTIONS.get(rule, "")), f"{counts['texts']:,}", f"{counts['texts'] / texts:.2%}"]
        + [f"{counts['dropped']:,}", f"{counts['characters']:,}"]
        for rule, counts in corpus["rules"].items()
    ]
    head = ["rule", "what it does", "texts changed", "of all", "of them dropped", "characters removed"]
    return "<h3>Cleaning</h3>" + table(head, rows, numbers=4)


def _excluded(corpus: Mapping[str, Any]) -> str:
    excluded = corpus.get("excluded", {})
    if not excluded:
        return ""
    rows = [[text(file), *(f"{counts.get(kind, 0):,}" for kind in ("exact", "loose"))] for file, counts in excluded.items()]
    return "<h3>Texts that are also in files of --exclude</h3>" + table(["file", "exactly", "loosely"], rows, numbers=2)


def _unusual(unusual: Mapping[str, int]) -> str:
    if not unusual:
        return ""
    signs = []
    for code, number in unusual.items():
        char = chr(int(code[2:], 16))
        shown = char if char.isprintable() else code
        signs.append(f'<li title="{text(code)} {text(unicodedata.name(char, ""))}">{text(shown)} {number:,}</li>')
    return f'<h3>Commonest characters that no Korean keyboard has</h3><ul class="signs">{"".join(signs)}</ul>'


def _examples(corpus: Mapping[str, Any]) -> str:
    """Before and after, what changed in colour."""
    if not corpus["examples"]:
        return ""
    note = "" if corpus["moderated"] else '<p class="note">Nobody moderated this corpus: its words are hidden.</p>'
    blocks = []
    for rule, pairs in corpus["examples"].items():
        blocks.append(f'<p class="rule"><strong>{text(rule)}</strong> <span class="note">{text(_DESCRIPTIONS.get(rule, ""))}</span></p>')
        for before, after in pairs:
            old, new = _highlighted(before, after)
            blocks.append(f'<div class="pair"><div><b>before</b>{old}</div><div><b>after</b>{new or "<em>dropped</em>"}</div></div>')
    return f"<h3>Examples</h3>{note}" + "".join(blocks)


def _highlighted(before: str, after: str) -> tuple[str, str]:
    old, new = [], []
    for tag, old_start, old_end, new_start, new_end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = text(before[old_start:old_end]), text(after[new_start:new_end])
        old.append(gone if tag == "equal" or not gone else f"<del>{gone}</del>")
        new.append(come if tag == "equal" or not come else f"<ins>{come}</ins>")
    return "".join(old), "".join(new)


# ---- plots


def _plots(name: str, corpus: Mapping[str, Any]) -> str:
    statistics = corpus["statistics"]
    lengths = (
        ("sentence_characters", "characters in a sentence", "sentences"),
        ("document_sentences", "sentences in a document", "documents"),
        ("document_characters", "characters in a document", "documents"),
    )
    pictures = [
        _histogram(name, xlabel, ylabel, statistics["bounds"], statistics[key]) for key, xlabel, ylabel in lengths if statistics[key]
    ]
    letters = {script: number for script, number in statistics["scripts"].items() if number}
    rules = {rule: counts["texts"] for rule, counts in corpus["rules"].items()}
    _, _, exact, near, excluded, mixture, kept, *_ = _counts(corpus)
    fates = {"kept": kept, "exact duplicates": exact, "near duplicates": near, "test texts": excluded, "not in the mixture": mixture}
    for title, bars in (("characters by script", letters), ("texts changed by rule", rules), ("what became of documents", fates)):
        if any(bars.values()):
            pictures.append(_bars(name, title, bars))
    return f'<div class="plots">{"".join(pictures)}</div>'


def _histogram(name: str, xlabel: str, ylabel: str, bounds: Sequence[int], counts: Sequence[int]) -> str:
    def draw(axes: Axes) -> None:
        axes.bar(range(len(counts)), counts, width=0.9, color=BLUE)
        step = max(1, len(counts) // 7)
        axes.set_xticks(range(0, len(counts), step), [_short(bounds[i]) for i in range(0, len(counts), step)])
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))

    fullest = max(range(len(counts)), key=lambda i: counts[i])
    until = f"up to {bounds[fullest + 1] - 1:,}" if fullest + 1 < len(bounds) else "and more"
    return picture(draw, f"{name}: {ylabel} by {xlabel}; the commonest are {bounds[fullest]:,} {until}, {counts[fullest]:,} {ylabel}")


def _bars(name: str, title: str, bars: Mapping[str, int]) -> str:
    total = sum(bars.values())

    def draw(axes: Axes) -> None:
        drawn = axes.barh(list(bars), list(bars.values()), color=BLUE)
        axes.bar_label(drawn, [_short(number) for number in bars.values()], padding=3, fontsize=8)
        axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)
        axes.margins(x=0.18)
        axes.set_xlabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))

    words = ", ".join(f"{key} {number:,} ({number / total:.1%})" for key, number in bars.items())
    return picture(draw, f"{name}: {title}: {words}")


def _short(number: float) -> str:
    """1234567 -> "1.2M"."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{sign}"
    return f"{number:g}"
