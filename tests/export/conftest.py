"""Models to export, and the libraries that have to agree."""

import collections
import json
import pathlib

import pytest
import tensorflow as tf

from export.served_model import ServedModel
from model.tokenization import SPECIAL_TOKENS
from model.words import WordSplitter, find_eojeols
from tests.finetune.conftest import home, make_config, make_transformers_folder, several, tiny  # noqa: F401 (fixtures)

LINES = """그는 심각합니다. 영화가 정말 재미있다!!
漢字와 한글, Ünïcode café naïve, ＡＢＣ １２３ ㈜한국
😀 이모티콘❤️ \u200b제로\ufeff폭 \xa0공백\t탭　전각
가격은 1,000원 / 3.5% #해시태그 @누구 [대괄호] {중괄호} <b>태그</b>
쀍뷁 ㄱㄴㄷ ㅏㅑㅓ ꥠ 𠮷 \x07 끝 ㅋㅋㅋㅋㅋ ~~ \ue000개인\ue001 용
각각 한국어 각 İstanbul ΣΑ""".split("\n")


def vocabulary(folder: pathlib.Path, texts, left_out="뷁𠮷끝") -> str:
    """Characters of `texts` and some words, but not all, so that [UNK] occurs."""
    characters = sorted({char for text in texts for char in text + text.lower() if not char.isspace()} - set(left_out))
    words = ["심각", "##합니다", "영화", "##가", "재미있", "##다", "한국", "##어", "20", "##20", "cafe"]
    path = folder / "vocab.txt"
    path.write_text(
        "\n".join(dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{char}" for char in characters), *words])) + "\n", encoding="utf-8"
    )
    return str(path)


def learned_vocabulary(folder: pathlib.Path, lines) -> str:
    """`vocabulary` of many lines, with the morphemes and beginnings of words that are frequent in some of them."""
    path, splitter = vocabulary(folder, lines[:20000]), WordSplitter(analyzer="mecab")
    found = collections.Counter(
        morph for line in lines[:20000:4] for eojeol in find_eojeols(line) for morph in (*splitter.marked_words(eojeol), eojeol[:3])
    )
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{piece}\n" for piece, count in found.most_common(8000) if len(piece.removeprefix("##")) > 1)
    return path


@pytest.fixture
def original(golden):
    """A checkpoint of google-research/electra: the fields of ExportConfig that name it."""
    return {"checkpoint": str(golden / "small"), "hparams": json.dumps({"model_hparam_overrides": {"num_attention_heads": 2}})}


@pytest.fixture
def wrong_logits(monkeypatch) -> None:
    """What is traced for an export gives other logits than the network."""
    right = ServedModel.discriminate

    def wrong(self, *features, **named):
        outputs = right(self, *features, **named)
        return {**outputs, "logits": outputs["logits"] + (0.001 if tf.inside_function() else 0.0)}

    monkeypatch.setattr(ServedModel, "discriminate", wrong)
