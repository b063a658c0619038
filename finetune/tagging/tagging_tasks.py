"""Tasks that tag the words of a sentence, such as finding names."""

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from configure_finetuning import FinetuningConfig
from finetune.feature_spec import FeatureSpec
from finetune.scorer import Scorer
from finetune.tagging.tagging_metrics import EntityF1Scorer, entity_report, find_entities
from finetune.tagging.tagging_module import NO_TAG, TaggingModule
from finetune.task import Encoder, Example, PredictionModule, Task
from finetune.task_files import read_tsv
from model.command import UserError
from model.modeling import BertConfig
from model.words import EOJEOL
from pretrain.text_files import read_lines

OUTSIDE = "O"


@dataclasses.dataclass(frozen=True)
class TaggedExample(Example):
    """A sentence, its words between single spaces, and a tag for each word."""

    tags: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return self.text_a.split(" ")


class EntityTask(Task):
    """Names of several types in a sentence. A word that begins a name of type PER is tagged PER-B, one that goes on with it PER-I.

    A word's tag stands on its first piece. Case is that of the tokenizer and all segment ids are 0; google-research/electra
    always lower-cased here, and its segment ids were 1.

    Class attributes:
      entities: the types, as the tags write them.
    """

    entities: Sequence[str]
    text_columns: Sequence[str] = ("text",)

    def __init__(self, config: FinetuningConfig):
        super().__init__(config)
        self.tags = [OUTSIDE, *(f"{entity}-{part}" for entity in self.entities for part in "BI")]  # their order gives the ids
        self._by_eid: dict[str, dict[int, TaggedExample]] = {}

    def signature(self, split: str) -> dict[str, Any]:
        return super().signature(split) | {"tags": self.tags}

    def check(self, path: str, example: TaggedExample) -> TaggedExample:
        """Returns `example`, or raises UserError if it is not as it should be."""
        place = f"{path}, {self.row_name} {example.eid}"
        if not example.text_a.strip():
            raise UserError(f"{place}: the sentence is empty, but task {self.name} needs words (--{self.files_flag})")
        if len(example.words) != len(example.tags):
            counts = f"{len(example.words)} words but {len(example.tags)} tags"
            raise UserError(f"{place}: {counts}, both separated by single spaces (--{self.files_flag})")
        for tag in example.tags:
            if tag not in self.tags:
                raise UserError(f"{place}: tag {tag[:40]!r} of task {self.name}; allowed: {', '.join(self.tags)} (--{self.files_flag})")
        return example

    def make_example(self, number: int, texts: Sequence[str]) -> TaggedExample:
        words = EOJEOL.findall(texts[0])
        return TaggedExample(number, " ".join(words), tags=(OUTSIDE,) * len(words))

    def describe(self, texts: Sequence[str], output: Mapping[str, Any]) -> dict[str, Any]:
        """{"entities": [{"type": "PER", "text": "이순신은", "start": 3, "end": 7, "probability": 0.97}]}

        start and end count the characters of the text as it was given. As tags stand on words, an entity reaches from the first
        character of its first word to the last of its last, particles included. Its probability is the product of its words' tags'.
        """
        words = list(EOJEOL.finditer(texts[0]))
        is_first = np.asarray(output["tag_ids"]) != NO_TAG
        probabilities = output["probabilities"][is_first]
        entities = []
        for kind, first, last in find_entities(self._predicted_tags(output, len(words))):
            start, end = words[first].start(), words[last].end()
            probability = round(float(np.prod(probabilities[first : last + 1])), 6)
            entities.append({"type": kind, "text": texts[0][start:end], "start": start, "end": end, "probability": probability})
        return {"entities": entities}

    def _predicted_tags(self, output: Mapping[str, Any], num_words: int) -> list[str]:
        """The predicted tag of each word; words that were cut off count as predicted to be outside."""
        seen = output["predictions"][np.asarray(output["tag_ids"]) != NO_TAG]
        return [*(self.tags[tag_id] for tag_id in seen), *[OUTSIDE] * (num_words - len(seen))]

    def featurize(self, example: TaggedExample, tokenizer: Encoder, is_training: bool) -> list[dict[str, Any]]:
        room = self.config.max_seq_length - 2
        pieces_by_word = word_pieces(example.words, tokenizer)
        kept = keep_whole_words(pieces_by_word, room)
        tag_ids = [[self.tags.index(tag), *[NO_TAG] * (len(pieces) - 1)] for pieces, tag in zip(kept, example.tags, strict=False)]
        input_ids = [tokenizer.cls_id, *itertools.chain.from_iterable(kept), tokenizer.sep_id]
        features = {
            "input_ids": input_ids,
            "segment_ids": [0] * len(input_ids),
            "num_cut": sum(map(len, pieces_by_word)) - (len(input_ids) - 2),
            f"{self.name}_eid": example.eid,
            f"{self.name}_tag_ids": [NO_TAG, *itertools.chain.from_iterable(tag_ids), NO_TAG],
        }
        return [features]

    def get_feature_specs(self) -> Sequence[FeatureSpec]:
        return (FeatureSpec(f"{self.name}_eid"), FeatureSpec(f"{self.name}_tag_ids", per_token=True, default=NO_TAG))

    def get_prediction_module(self, bert_config: BertConfig, seed: int) -> PredictionModule:
        self.warn_of_class_weights()
        return TaggingModule(self.name, self.config.classifier_head, len(self.tags), bert_config, seed)

    def get_scorer(self) -> Scorer:
        return EntityF1Scorer()

    def complete(self, split: str, output: Mapping[str, Any]) -> dict[str, Any]:
        """Adds words, tags and predicted_tags of the whole sentence, and num_seen, how many words were not cut off."""
        example = self._examples(split)[int(output["eid"])]
        found = {"words": example.words, "tags": list(example.tags), "predicted_tags": self._predicted_tags(output, len(example.tags))}
        return {**output, **found, "num_seen": np.count_nonzero(np.asarray(output["tag_ids"]) != NO_TAG)}

    def _examples(self, split: str) -> dict[int, TaggedExample]:
        """The examples of `split` by eid."""
        if split not in self._by_eid:
            examples: Sequence[Any] = self.get_examples(split)
            self._by_eid[split] = {example.eid: example for example in examples}
        return self._by_eid[split]

    def get_report(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return entity_report([result["tags"] for result in results], [result["predicted_tags"] for result in results])

    def prediction_rows(self, results: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
        """Columns: line of the sentence in its file, word, its tag, and the predicted one; a row for each word."""
        for result in results:
            for word, tag, predicted in zip(result["words"], result["tags"], result["predicted_tags"], strict=True):
                yield {self.row_name: int(result["eid"]), "word": word, "tag": tag, "prediction": predicted}


class NaverNER(EntityTask):
    """The names of Naver's and Changwon University's NLP challenge, as the published benchmark lays them out.

    A line holds the words, a tab, and as many tags:  금석객잔 여러분, 감사드립니다 .  ->  ORG-B O O O
    Its licence forbids passing the files on, so that a stand-in may take their place. Dev is cut out of train.
    """

    name = "naver-ner"
    files = {"train": "train.tsv", "test": "test.tsv"}
    standins = {"train": "standin.klue-ner-dev.train.tsv", "test": "standin.klue-ner-dev.test.tsv"}
    entities = ("PER", "FLD", "AFW", "ORG", "LOC", "CVL", "DAT", "TIM", "NUM", "EVT", "ANM", "PLT", "MAT", "TRM")

    def read_examples(self, path: str) -> list[TaggedExample]:
        rows = read_tsv(path, ("words", "tags"), has_header=False)
        return [self.check(path, TaggedExample(number, row["words"], tags=tuple(row["tags"].split(" ")))) for number, row in rows]


class KlueNER(EntityTask):
    """KLUE-NER 1.1, whose tags stand on characters; here a word takes the first entity that has a character in it.

        ## klue-ner-v1_dev_00000\t<경찰:OG>은 또
        경\tB-OG
        찰\tI-OG                                      ->  경찰은 또  OG-B O
        은\tO
         \tO
        또\tO

    So scores do not compare with KLUE's own. Its test tags are not public: its dev file is the test, dev is cut out of train.
    """

    name = "klue-ner"
    files = {"train": "klue-ner-v1.1_train.tsv", "test": "klue-ner-v1.1_dev.tsv"}
    entities = ("PS", "LC", "OG", "DT", "TI", "QT")

    def read_examples(self, path: str) -> list[TaggedExample]:
        examples, lost = [], 0
        for number, characters in _read_sentences(path):
            words = [list(group) for is_space, group in itertools.groupby(characters, lambda pair: pair[0] == " ") if not is_space]
            tags = tuple(_word_tag([tag for _, tag in word]) for word in words)
            lost += sum(
                max(0, sum(tag.startswith("B-") for _, tag in word) - tag.endswith("-B")) for word, tag in zip(words, tags, strict=True)
            )
            text = " ".join("".join(character for character, _ in word) for word in words)
            examples.append(self.check(path, TaggedExample(number, text, tags=tags)))
        logging.info("%s: %d entities begin in a word that has another one before, and are left out", path, lost)
        return examples


def _read_sentences(path: str) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """(number of the first line, character and tag pairs) of each sentence; blank lines end one, lines with ## are comments."""
    lines = enumerate(read_lines(path), 1)
    for is_text, group in itertools.groupby(lines, lambda line: bool(line[1].strip()) and not line[1].startswith("## ")):
        if is_text:
            sentence = [(number, line.split("\t")) for number, line in group]
            for number, fields in sentence:
                if len(fields) != 2:
                    raise UserError(
                        f"{path}, line {number}: {len(fields)} tab-separated fields instead of 2 (character, tag) (--raw_data_dir)"
                    )
            yield sentence[0][0], [(character, tag) for _, (character, tag) in sentence]


def _word_tag(tags: Sequence[str]) -> str:
    """["O", "B-PS", "I-PS", "B-QT"] -> PS-B"""
    part, _, entity = next((tag for tag in tags if tag != OUTSIDE), OUTSIDE).partition("-")
    return f"{entity}-{part}" if entity else part


def word_pieces(words: Sequence[str], tokenizer: Encoder) -> list[list[int]]:
    """The pieces of each word, told by where they stand in the sentence; [UNK] for a word that has none, such as a control character.

    ["그는", "심각합니다."] -> [[그, ##는], [심각, ##합니다, .]]
    """
    starts = list(itertools.accumulate((len(word) + 1 for word in words[:-1]), initial=0))
    pieces_by_word: list[list[int]] = [[] for _ in words]
    pieces = tokenizer.tokenize_with_offsets(" ".join(words))
    for piece, piece_id in zip(pieces, tokenizer.convert_tokens_to_ids([piece.text for piece in pieces]), strict=True):
        pieces_by_word[bisect.bisect_right(starts, piece.start) - 1].append(piece_id)
    return [ids or [tokenizer.unk_id] for ids in pieces_by_word]


def keep_whole_words(pieces_by_word: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """The first words that fit `room` pieces together; of a first word that does not fit alone, what fits.

    [[5, 6], [7], [8, 9]], room 4 -> [[5, 6], [7]]
    """
    ends = list(itertools.accumulate(map(len, pieces_by_word)))
    count = bisect.bisect_right(ends, room)
    return list(pieces_by_word[:count]) if count else [pieces_by_word[0][:room]]
