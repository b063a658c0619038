"""What the demo page asks: morphemes and pieces, tokens that look replaced, what the generator would put there, answers of the tasks.

It goes by what export_checkpoint.py puts into assets.extra of a SavedModel: config.json and the vocabulary. Models without it are
served, but not shown.
"""

import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from finetune.prediction import choose_task, read_config
from finetune.task import Task
from finetune.task_builder import get_tasks
from model.command import read_json
from model.tokenization import FullTokenizer, Piece
from model.words import EOJEOL
from server.loaded_model import BadRequest, Columns, LoadedModel, Request

SUGGESTIONS = 5  # of the generator for one token
Submit = Callable[[str, Request], Awaitable[Columns]]  # name of a model, request -> outputs


@dataclasses.dataclass(frozen=True)
class Member:
    """A model that the page can show. `max_length`: pieces that it takes, special tokens included."""

    name: str
    part: str
    tokenizer: FullTokenizer
    task: Task | None
    max_length: int

    @classmethod
    def find(cls, model: LoadedModel) -> "Member | None":
        """What assets.extra says; None where it says nothing, or what this machine lacks the packages for."""
        folder = os.path.join(model.folder, "assets.extra")
        if not os.path.exists(os.path.join(folder, "config.json")):
            return None
        record = read_json(os.path.join(folder, "config.json"), "models")
        settings = {name: record["tokenizer"][name] for name in ("tokenizer_type", "analyzer", "do_lower_case", "strip_accents")}
        tokenizer = FullTokenizer(os.path.join(folder, record["vocab_file"]), **settings)
        if record["part"] != "finetuned":
            return cls(model.name, record["part"], tokenizer, None, record["bert_config"]["max_position_embeddings"])
        config = read_config(folder)
        return cls(model.name, "finetuned", tokenizer, choose_task(get_tasks(config), record["task"]), config.max_seq_length)


class Demo:
    """Answers the page's requests; `submit` computes."""

    def __init__(self, models: Mapping[str, LoadedModel], submit: Submit):
        self._models, self._submit = models, submit
        self.members = [member for model in models.values() if (member := Member.find(model)) is not None]

    def describe(self) -> dict[str, Any]:
        """The models that can be shown, and whether one of them wants two texts."""
        tasks = [member.task for member in self.members if member.task is not None]
        shown = [{"name": member.name, "part": member.part, "task": member.task.name if member.task else None} for member in self.members]
        return {"models": shown, "has_pairs": any(len(task.text_columns) == 2 for task in tasks)}

    async def analyze(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """{"text": ..., "pair": null or text, "swaps": {"3": id}} -> words, pieces with probabilities, answers of the tasks.

        swaps: place of a piece -> id that stands there instead, for the discriminator alone.
        """
        text, pair = self._text(body, "text"), body.get("pair")
        reader = self._first("discriminator") or self._first("generator") or (self.members[0] if self.members else None)
        if reader is None:
            raise BadRequest("none of the models was exported with what the page needs: export them anew")
        pieces = reader.tokenizer.tokenize_with_offsets(text)[: reader.max_length - 2]
        ids = self._swapped(reader, pieces, body.get("swaps") or {})
        shown = [self._piece(reader, piece, row) for piece, row in zip(pieces, ids, strict=True)]
        if discriminator := self._first("discriminator"):
            found = await self._run(discriminator, [reader.tokenizer.cls_id, *ids, reader.tokenizer.sep_id])
            for piece, probability in zip(shown, found["probabilities"][0, 1:-1].tolist(), strict=True):
                piece["replaced"] = probability
        answers = [answer for member in self.members if member.task and (answer := await self._answer(member, text, pair))]
        return {"words": _words(reader.tokenizer, text), "pieces": shown, "tasks": answers}

    async def suggest(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """{"text": ..., "place": 3} -> what the generator would put in place of that piece, the likeliest first."""
        text, place, generator = self._text(body, "text"), body.get("place"), self._first("generator")
        if generator is None:
            raise BadRequest("no generator is served: export one with --part=generator")
        pieces = generator.tokenizer.tokenize_with_offsets(text)[: generator.max_length - 2]
        if type(place) is not int or not 0 <= place < len(pieces):
            raise BadRequest(f"place must be a whole number from 0 to {len(pieces) - 1}, got {place!r:.40}")
        tokenizer = generator.tokenizer
        ids = tokenizer.convert_tokens_to_ids([piece.text for piece in pieces])
        ids[place] = tokenizer.mask_id
        logits = (await self._run(generator, [tokenizer.cls_id, *ids, tokenizer.sep_id]))["logits"][0, place + 1].astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = [int(row) for row in np.argsort(-probabilities, kind="stable")[:SUGGESTIONS]]
        return {"suggestions": [{"id": row, "piece": tokenizer.inv_vocab[row], "probability": float(probabilities[row])} for row in best]}

    def _first(self, part: str) -> Member | None:
        return next((member for member in self.members if member.part == part), None)

    def _text(self, body: Mapping[str, Any], name: str) -> str:
        text = body.get(name) if isinstance(body, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            raise BadRequest(f"{name} must be a text that is not empty")
        return self._models[next(iter(self._models))].check_text(name, text)

    def _swapped(self, reader: Member, pieces: list[Piece], swaps: Any) -> list[int]:
        ids = reader.tokenizer.convert_tokens_to_ids([piece.text for piece in pieces])
        for place, row in swaps.items() if isinstance(swaps, Mapping) else ():
            if not (place.isdecimal() and int(place) < len(ids) and type(row) is int and 0 <= row < reader.tokenizer.vocab_size):
                raise BadRequest(f"swaps must be places of pieces and ids of the vocabulary, got {place!r:.20}: {row!r:.20}")
            ids[int(place)] = row
        return ids

    @staticmethod
    def _piece(reader: Member, piece: Piece, row: int) -> dict[str, Any]:
        name = reader.tokenizer.inv_vocab[row]
        return {"piece": name, "id": row, "start": piece.start, "end": piece.end, "swapped": name != piece.text, "replaced": None}

    async def _run(self, member: Member, ids: list[int], segments: list[int] | None = None) -> Columns:
        """Outputs of the model's own function for one text."""
        features = {"input_ids": ids, "input_mask": [1] * len(ids), "segment_ids": segments or [0] * len(ids)}
        columns = {name: np.array([values], np.int32) for name, values in features.items()}
        return await self._submit(member.name, Request(self._models[member.name].main_signature, columns, by_row=False))

    async def _answer(self, member: Member, text: str, pair: Any) -> dict[str, Any] | None:
        """What a fine-tuned model says; None for a model of two texts without a second one."""
        task = member.task
        assert task is not None
        texts = (text,) if len(task.text_columns) == 1 else (text, pair)
        if not all(isinstance(part, str) and part.strip() for part in texts):
            return None
        features = task.featurize(task.make_example(0, texts), member.tokenizer, False)[0]
        found = {name: values[0] for name, values in (await self._run(member, features["input_ids"], features["segment_ids"])).items()}
        output = {"probabilities": found.get("probabilities"), "predictions": found.get("tags", found.get("score"))}
        if "logits" in found:
            output["predictions"] = np.argmax(found["logits"])
        output["tag_ids"] = features.get(f"{task.name}_tag_ids")
        return {"model": member.name, "task": task.name, **task.describe(texts, output)}


def _words(tokenizer: FullTokenizer, text: str) -> list[dict[str, Any]]:
    """The words between spaces, each with its morphemes, the later ones marked."""
    words = [match.group() for match in EOJEOL.finditer(text)]
    return [{"text": word, "morphemes": list(tokenizer.splitter.marked_words(word))} for word in words]
