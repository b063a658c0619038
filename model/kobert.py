"""Sentences to sentencepieces as KoBERT and DistilKoBERT were trained on them (KoBertTokenizer, after XLNet's tokenizer)."""

import unicodedata
from typing import Any

_MARK = "\u2581"  # begins a word


class SentenceCutter:
    """Calls a sentencepiece model on whole sentences, with what KoBertTokenizer does before and after.

    Args:
        model: a sentencepiece.SentencePieceProcessor.
        do_lower_case: lower-cases letters.
        strip_accents: drops combining marks (é -> e) on the way to compatibility forms; KoBERT's default.
    """

    def __init__(self, model: Any, do_lower_case: bool, strip_accents: bool):
        self._model, self._do_lower_case = model, do_lower_case
        # NFKD takes Hangul apart too. KoBERT's model puts it together again (NFKC); one that does not was not trained on such text.
        composes = model.encode(unicodedata.normalize("NFKD", "한국"), out_type=str) == model.encode("한국", out_type=str)
        self._strip_accents = strip_accents and composes

    def __call__(self, text: str) -> list[str]:
        """Returns the pieces; those the model does not know stand there as they are written."""
        pieces: list[str] = []
        for piece in self._model.encode(self._clean(text), out_type=str):
            pieces += self._without_comma(piece) if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit() else [piece]
        return pieces

    def _clean(self, text: str) -> str:
        text = " ".join(text.encode("utf-8", "ignore").decode().split())  # a lone surrogate is no text to the model
        text = text.replace("``", '"').replace("''", '"')
        if self._strip_accents:
            text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
        return text.lower() if self._do_lower_case else text

    def _without_comma(self, piece: str) -> list[str]:
        """Cuts the comma off a number, and the number anew:  _10,  ->  _10  and  ,  (_ for the mark)."""
        pieces = self._model.encode(piece[:-1].replace(_MARK, ""), out_type=str)
        if not piece.startswith(_MARK):  # the model puts a mark before what is no beginning here
            pieces = [pieces[0].removeprefix(_MARK), *pieces[1:]]
        return [*filter(None, pieces), ","]
