"""What the demo page asks: morphemes and pieces, tokens that look replaced, what the generator would put there, answers of the tasks.

It goes by what export_checkpoint.py puts into assets.extra of a SavedModel: config.json and the vocabulary. Models without it are
served, but not shown.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from finetune.prediction import choose_task, read_config
from finetune.task import Task
from finetune.task_builder import get_tasks
from model.command import UserError, read_json
from model.tokenization import FullTokenizer, Piece
from model.words import EOJEOL
from server.loaded_model import BadRequest, Columns, LoadedModel, Request

MAX_CHARACTERS = 500  # as the page has it
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
        """What assets.extra says; None where it says nothing, or something that this machine lacks the packages for."""
        folder = os.path.join(model.folder, "assets.extra")
        if not os.path.exists(os.path.join(folder, "config.json")):
            return None
        try:
            return cls._read(model, folder)
        except (UserError, KeyError, TypeError, AttributeError) as error:
            logging.warning("%s is served but not shown on the page: %s", model.name, error)
            return None

    @classmethod
    def _read(cls, model: LoadedModel, folder: str) -> "Member":
        record = read_json(os.path.join(folder, "config.json"), "models")
        settings = {name: record["tokenizer"][name] for name in ("tokenizer_type", "analyzer", "do_lower_case", "strip_accents")}
        tokenizer = FullTokenizer(os.path.join(folder, os.path.basename(record["vocab_file"])), **settings)
        if record["part"] != "finetuned":
            return cls(model.name, record["part"], tokenizer, None, model.max_length)
        config = read_config(folder)
        return cls(model.name, "finetuned", tokenizer, choose_task(get_tasks(config), record["task"]), model.max_length)


class Demo:
    """Answers the page's requests; `submit` computes."""

    def __init__(self, models: Mapping[str, LoadedModel], submit: Submit):
        self._models, self._submit = models, submit
        self.members = [member for model in models.values() if (member := Member.find(model)) is not None]
        # Places and ids of pieces are those of one vocabulary.
        self._reader = next((member for part in ("discriminator", "generator") for member in self.members if member.part == part), None)
        if self._reader is None and self.members:
            self._reader = self.members[0]
        self._discriminator, self._generator = self._of_same_vocabulary("discriminator"), self._of_same_vocabulary("generator")
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "demo")  # tokenizers and their memories are for one thread at a time

    def _of_same_vocabulary(self, part: str) -> Member | None:
        for member in self.members:
            if member.part == part and self._reader and member.tokenizer.provenance() == self._reader.tokenizer.provenance():
                return member
        return None

    def describe(self) -> dict[str, Any]:
        """The models that can be shown, and whether one of them wants two texts."""
        tasks = [member.task for member in self.members if member.task is not None]
        shown = [{"name": member.name, "part": member.part, "task": member.task.name if member.task else None} for member in self.members]
        has_pairs = any(len(task.text_columns) == 2 for task in tasks)
        return {"models": shown, "has_pairs": has_pairs, "has_generator": self._generator is not None}

    async def analyze(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """{"text": ..., "pair": null or text, "swaps": {"3": id}} -> words, pieces with probabilities, answers of the tasks.

        swaps: place of a piece -> id that stands there instead, for the discriminator alone. "cut": pieces that the model does not take.
        """
        text = self._text(body, "text")
        pair = None if body.get("pair") is None else self._text(body, "pair")
        reader, pieces, ids, num_cut = await self._in_thread(self._prepare, text, body.get("swaps"))
        shown = [self._piece(reader, piece, row) for piece, row in zip(pieces, ids, strict=True)]
        if self._discriminator is not None:
            found = await self._run(self._discriminator, [reader.tokenizer.cls_id, *ids, reader.tokenizer.sep_id])
            for piece, probability in zip(shown, found["probabilities"][0, 1:-1].tolist(), strict=True):
                piece["replaced"] = probability
        answers = [answer for member in self.members if member.task and (answer := await self._answer(member, text, pair))]
        words = await self._in_thread(_words, reader.tokenizer, text)
        return {"words": words, "pieces": shown, "tasks": answers, "cut": num_cut}

    async def suggest(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """{"text": ..., "place": 3, "swaps": {}} -> what the generator would put in place of that piece, the likeliest first."""
        text, place, generator = self._text(body, "text"), body.get("place"), self._generator
        if generator is None:
            raise BadRequest("no generator of the same vocabulary is served: export one with --part=generator")
        _, pieces, ids, _ = await self._in_thread(self._prepare, text, body.get("swaps"))
        if type(place) is not int or not 0 <= place < len(pieces):
            raise BadRequest(f"place must be that of one of the {len(pieces)} pieces, counting from 0, got {place!r:.40}")
        tokenizer = generator.tokenizer
        ids[place] = tokenizer.mask_id
        logits = (await self._run(generator, [tokenizer.cls_id, *ids, tokenizer.sep_id]))["logits"][0, place + 1].astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = [int(row) for row in np.argsort(-probabilities, kind="stable")[:SUGGESTIONS]]
        return {"suggestions": [{"id": row, "piece": tokenizer.inv_vocab[row], "probability": float(probabilities[row])} for row in best]}

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _text(self, body: Mapping[str, Any], name: str) -> str:
        text = body.get(name)
        if not isinstance(text, str) or not text.strip():
            raise BadRequest(f"{name} must be a text that is not empty")
        if len(text) > MAX_CHARACTERS:
            raise BadRequest(f"{name} holds {len(text):,} characters, at most {MAX_CHARACTERS} are allowed")
        return next(iter(self._models.values())).check_text(name, text)

    def _prepare(self, text: str, swaps: Any) -> tuple[Member, list[Piece], list[int], int]:
        """(whose vocabulary counts, pieces that fit, their ids with `swaps`, how many pieces do not fit)."""
        reader = self._reader
        if reader is None:
            raise BadRequest("none of the models was exported with what the page needs: export them anew")
        every = reader.tokenizer.tokenize_with_offsets(text)
        pieces = every[: reader.max_length - 2]
        ids = reader.tokenizer.convert_tokens_to_ids([piece.text for piece in pieces])
        for place, row in swaps.items() if isinstance(swaps, Mapping) else ():
            # Python refuses to read numbers of very many digits.
            if not (
                place.isdecimal()
                and len(place) < 10
                and int(place) < len(ids)
                and type(row) is int
                and 0 <= row < reader.tokenizer.vocab_size
            ):
                raise BadRequest(f"swaps must be places of pieces and ids of the vocabulary, got {place!r:.20}: {row!r:.20}")
            ids[int(place)] = row
        return reader, pieces, ids, len(every) - len(pieces)

    @staticmethod
    def _piece(reader: Member, piece: Piece, row: int) -> dict[str, Any]:
        name = reader.tokenizer.inv_vocab[row]
        return {"piece": name, "id": row, "start": piece.start, "end": piece.end, "swapped": name != piece.text, "replaced": None}

    async def _run(self, member: Member, ids: list[int], segments: list[int] | None = None) -> Columns:
        """Outputs of the model's own function for one text."""
        features = {"input_ids": ids, "input_mask": [1] * len(ids), "segment_ids": segments or [0] * len(ids)}
        columns = {name: np.array([values], np.int32) for name, values in features.items()}
        model = self._models[member.name]
        return await self._submit(member.name, model.make_request(model.main_signature, columns))

    async def _answer(self, member: Member, text: str, pair: str | None) -> dict[str, Any] | None:
        """What a fine-tuned model says; None for a model of two texts without a second one."""
        task = member.task
        assert task is not None
        if len(task.text_columns) == 2 and pair is None:
            return None
        texts = (text,) if len(task.text_columns) == 1 or pair is None else (text, pair)
        features = (await self._in_thread(task.featurize, task.make_example(0, texts), member.tokenizer, False))[0]
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
