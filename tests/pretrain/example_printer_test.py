"""What a terminal gets to see."""

import re
import sys

import numpy as np
import pytest

from model.tokenization import FullTokenizer
from pretrain.example_printer import Draw, Example, Printer, Vocabulary, make_console, printable
from pretrain.record_checker import Statistics

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "그", "##는", "심각", "##합니다", ".", "오늘", "밤", "##에"]
IDS = [2, 5, 6, 7, 8, 9, 3, 10, 11, 12, 1, 3, 0, 0]
EXAMPLE = Example(7, "shard", 3, 420, np.array([IDS, [1] * 12 + [0] * 2, [0] * 7 + [1] * 5 + [0] * 2]), None)


@pytest.fixture
def vocabulary(tmp_path) -> Vocabulary:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    return Vocabulary(FullTokenizer(str(tmp_path / "vocab.txt"), tokenizer_type="wordpiece", analyzer="none"))


@pytest.fixture
def show(vocabulary, monkeypatch, capsys):
    """show(masked positions, kept positions) -> what is printed of EXAMPLE in 44 columns."""
    monkeypatch.setenv("COLUMNS", "44")

    def show(masked: list[int], kept: list[int], color: str = "never", slots: int = 0) -> str:
        ids = np.array(IDS)
        ids[masked] = 4
        drawn = np.isin(np.arange(len(IDS)), masked + kept)
        draw = Draw(~np.isin(IDS, [0, 2, 3]), drawn, ids, slots or int(drawn.sum()))
        Printer(make_console(color), vocabulary).example(EXAMPLE, draw)
        return capsys.readouterr().out

    return show


def test_an_example(show):
    assert show([2, 9], [5]) == (
        "example 7: record 3 of shard, from byte 420\n"
        "length 12 of 14, padding 2; 5 pieces in A, 4 pieces in B\n"
        "  A  그는 심각합니다 .\n"
        "  B  오늘 밤에 [UNK]\n"
        "masking: 3 of 9 candidates, 2 as [MASK] and 1 kept\n"
        "   0 A  [CLS] 그 ##는   심각 ##합니다 .\n"
        "                 [MASK]               kept\n"
        "   6 A  [SEP]\n"
        "   7 B  오늘 밤 ##에   [UNK] [SEP]\n"
        "                [MASK]\n"
        "\n"
    )


def test_positions_drawn_twice_are_said_to_be(show):
    assert "masking: 2 in 3 draws of 9 candidates, 2 as [MASK] and 0 kept\n" in show([2, 9], [], slots=3)


def test_nothing_drawn_leaves_the_second_lines_out(show):
    assert show([], []).splitlines()[4:] == [
        "masking: 0 of 9 candidates, 0 as [MASK] and 0 kept",
        "   0 A  [CLS] 그 ##는 심각 ##합니다 . [SEP]",
        "   7 B  오늘 밤 ##에 [UNK] [SEP]",
        "",
    ]


def test_colors_only_add_to_the_text(show):
    colored = show([2, 9], [5], "always")
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == show([2, 9], [5])
    for shown in ("\x1b[36m그", "\x1b[32m오늘", "\x1b[1;31m##는", "\x1b[1;31m[MASK]", "\x1b[1;33mkept", "\x1b[1;35m[UNK]", "\x1b[2m[CLS]"):
        assert shown in colored


@pytest.mark.parametrize(
    ("color", "terminal", "environment", "colored"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_where_there_is_color(monkeypatch, capsys, vocabulary, color, terminal, environment, colored):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    Printer(make_console(color), vocabulary).bad("가")
    assert capsys.readouterr().out == ("\x1b[1;31mbad: \x1b[0m가\n" if colored else "bad: 가\n")


def test_data_cannot_steer_the_terminal(vocabulary):
    assert printable("가 나\x1b[2J\u202e\u200b\x9b\n") == "가 나\\x1b[2J\\u202e\\u200b\\x9b\\n"
    vocabulary.tokenizer.inv_vocab[6] = "##\x1b[2J"
    assert vocabulary.pieces([6]) == ["##\\x1b[2J"]
    assert vocabulary.text([2, 5, 6, 99, 3]) == "그\\x1b[2J <99>"


def test_a_summary(monkeypatch, vocabulary, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    statistics = Statistics(np.zeros(65, np.int64), np.zeros(len(VOCAB), np.int64))
    statistics.lengths[[4, 5, 8, 64]] = 2, 1, 7, 20
    statistics.pieces[[1, 2, 3, 5, 12]] = 5, 30, 40, 60, 35
    statistics.two_segments = 10
    Printer(make_console("never"), vocabulary).summary(statistics, "two shards")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:9] == [
        "summary of two shards: 30 examples",
        "  tokens      170, 5.7 an example; padding 91.1 %",
        "  segments    two in 33.3 % of the examples",
        "  [UNK]       5, 5.000 % of the pieces",
        "  vocabulary  3 of 13 pieces occur",
        "  lengths",
        "        1 to 4     ████ 2",
        "        5 to 8     ████████████████ 8",
        "        9 to 12    0",
    ]
    assert lines[-3:] == [
        "  most frequent pieces, in % of all",
        "    그 60.00     ##에 35.00",
        "    [UNK] 5.00",
    ]
    assert "       61 to 64    ████████████████████████████████████████ 20" in lines and len(lines) == 25


def test_a_summary_of_nothing(vocabulary, capsys):
    Printer(make_console("never"), vocabulary).summary(Statistics(np.zeros(65, np.int64), np.zeros(13, np.int64)), "nothing")
    assert capsys.readouterr().out == "summary of nothing: 0 examples\n"
