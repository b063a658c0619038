"""Tasks without code: a YAML file says where the examples lie and what is right in them (docs/adding_a_task.md).

    my_task.yaml -> TaskDescription -> a dict in FinetuningConfig.task_config -> a Task like any other

The dict holds all that the file said, so that a task can be made again from the config.json beside trained weights alone.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from configure_finetuning import FinetuningConfig, definition
from finetune.classification.classification_metrics import AccuracyScorer, F1Scorer, MatthewsScorer
from finetune.classification.classification_tasks import ClassificationTask, RegressionTask
from finetune.scorer import Scorer
from finetune.tagging.tagging_tasks import EntityTask, TaggedExample
from finetune.task import Task
from finetune.task_files import Row, read_csv, read_json_lines, read_json_rows, read_tsv
from model.command import UserError
from model.words import has_half_pair

FLAG = "task_config"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")  # becomes part of variable names, of folder names and of --task_names
NAME_RULE = "a letter and up to 39 more letters (a to z), digits, - and _"
FORMATS = ("tsv", "csv", "jsonl", "json")
METRICS = {
    "classification": ("accuracy", "macro_f1", "f1", "matthews"),
    "regression": ("spearman", "pearson"),
    "tagging": ("entity_f1",),
}
# key -> what it has to be
_COMMON_KEYS = {
    "name": NAME_RULE,
    "type": f"one of {', '.join(METRICS)}",
    "files": "the names of the files, such as {train: train.tsv, dev: dev.tsv, test: test.tsv}; dev may be left out",
    "format": f"one of {', '.join(FORMATS)}",
    "header": "true or false: whether the first line of a tsv or csv file names the columns",
    "columns": "a list of the columns of a tsv or csv file",
    "text": "the column of the text, or a list of two for pairs of texts",
    "label": "the column of the right answer",
    "metric": "the score that selects the weights",
}
_PAIR_KEYS = {
    "symmetric": "true or false: whether the two texts of a pair may change places",
    "allow_empty_text": "true or false: whether a text may be empty",
}
_KEYS_BY_TYPE = {
    "classification": {"labels": "a list of two or more labels", "positive_label": "one of the labels", **_PAIR_KEYS},
    "regression": {"range": "the lowest and the highest score, such as [0, 5]", **_PAIR_KEYS},
    "tagging": {"entities": "a list of the types of entities, such as [PER, LOC]"},
}
_KEYS = {**_COMMON_KEYS, **{key: rule for rules in _KEYS_BY_TYPE.values() for key, rule in rules.items()}}


@dataclasses.dataclass(frozen=True)
class TaskDescription:
    """What a YAML file says of a task, checked; `path`: that file, whose folder the names in `files` start from."""

    path: str
    name: str
    type: str
    files: Mapping[str, str]
    format: str
    text: tuple[str, ...]
    label: str
    metric: str
    header: bool = True
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    positive_label: str = ""
    range: tuple[float, ...] = ()
    entities: tuple[str, ...] = ()
    symmetric: bool = False
    allow_empty_text: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, of JSON's types; what is left at its default is left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = {field.name for field in dataclasses.fields(self) if values[field.name] != field.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if name in given}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TaskDescription":
        """The description that an entry of FinetuningConfig.task_config holds."""
        return _parse({key: value for key, value in values.items() if key != "path"}, str(values.get("path", "")))


def read_task_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for FinetuningConfig.create, with what the YAML files say in place of the files that task_config names.

    Raises:
      UserError: a file that cannot be read, or is not the description of a task.
    """
    if FLAG not in values:
        return dict(values)
    found = values[FLAG] if isinstance(values[FLAG], list) else [values[FLAG]]
    return {**values, FLAG: [read_description(entry).to_dict() if isinstance(entry, str) else entry for entry in found]}


def read_description(path: str) -> TaskDescription:
    """Reads a YAML file; UserError for every mistake in it."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            values = yaml.load(file, _Loader)
    except OSError as error:
        raise UserError(f"cannot read {path!r}: {error.strerror} (--{FLAG})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{path}, line {mark.line + 1 if mark else '?'}: not YAML: {error.problem or error.context} (--{FLAG})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # forbidden characters, not UTF-8, an impossible date, [[[...
        raise UserError(f"{path} is not YAML in UTF-8: {' '.join(str(error).split())} (--{FLAG})") from error
    return _parse(values, os.path.abspath(path))


class _Loader(yaml.SafeLoader):
    """yaml.safe_load's loader, where the second of two equal keys silently wins, and a few lines of aliases can mean gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="write out what *alias stands for", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > 64:  # Python does not even print numbers of very many digits
            raise yaml.MarkedYAMLError(problem="a whole number of more than 64 bits", problem_mark=node.start_mark)
        return number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


# ---- from a mapping to a description


def _parse(values: Any, path: str) -> TaskDescription:
    given = _Given(values, path)
    kind = given.choice("type", METRICS)
    given.refuse({key: f"type {kind}" for rules in _KEYS_BY_TYPE.values() for key in rules if key not in _KEYS_BY_TYPE[kind]})
    files = given.files()
    format = given.choice("format", FORMATS, _format_of(files.values()))
    if format.startswith("json"):
        given.refuse({"header": f"format {format}", "columns": f"format {format}"})
    metric = given.choice("metric", METRICS[kind], METRICS[kind][0])
    if metric != "f1":
        given.refuse({"positive_label": f"metric {metric}"})
    description = TaskDescription(
        path=path,
        name=given.name(),
        type=kind,
        files=files,
        format=format,
        text=given.texts("text", 1, 1 if kind == "tagging" else 2),
        label=given.text("label"),
        metric=metric,
        header=given.switch("header", True),
        columns=given.texts("columns", 2) if "columns" in given.values or not given.switch("header", True) else (),
        labels=given.texts("labels", 2) if kind == "classification" else (),
        positive_label=given.text("positive_label") if metric == "f1" else "",
        range=given.range() if kind == "regression" else (),
        entities=given.texts("entities", 1) if kind == "tagging" else (),
        symmetric=given.switch("symmetric", False),
        allow_empty_text=given.switch("allow_empty_text", False),
    )
    _check_together(description, given)
    return description


def _format_of(names: Collection[str]) -> str | None:
    """The format that the ends of all names agree on."""
    ends = {os.path.splitext(name)[1].removeprefix(".").lower() for name in names}
    return ends.pop() if len(ends) == 1 and ends <= set(FORMATS) else None


def _check_together(description: TaskDescription, given: "_Given") -> None:
    """What no key shows alone."""
    if description.label in description.text:
        raise given.error(f"text and label name the same column {description.label!r}, must be different ones")
    for key, column in (*(("text", column) for column in description.text), ("label", description.label)):
        if description.columns and column not in description.columns:
            raise given.error(f"{key} names the column {column!r}, must be one of columns: {', '.join(description.columns)}")
    if description.positive_label and description.positive_label not in description.labels:
        raise given.error(f"positive_label is {description.positive_label!r}, must be one of labels: {', '.join(description.labels)}")
    if description.symmetric and len(description.text) == 1:
        raise given.error("symmetric is true, which needs two columns in text")
    for entity in description.entities:
        if entity.split() != [entity]:
            raise given.error(f"entities holds {entity!r}, must be words without spaces")


class _Given:
    """The keys and values of a file, and the errors about them."""

    def __init__(self, values: Any, path: str):
        self._path = path
        if not isinstance(values, dict):
            raise self.error(f"holds {_shown(values)} instead of keys and values such as 'name: intent'")
        self.values: dict[str, Any] = values
        for key in values:
            if key not in _KEYS:
                close = difflib.get_close_matches(str(key), _KEYS, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_KEYS)}"
                raise self.error(f"unknown key {key!r}: {hint}")

    def error(self, sentence: str) -> UserError:
        return UserError(f"{self._path}: {sentence} (--{FLAG})")

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """`reasons`: key that must not be there -> because of what."""
        for key, reason in reasons.items():
            if key in self.values:
                raise self.error(f"the key {key!r} ({_KEYS[key]}) has no meaning with {reason}")

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(f"the key {key!r} is missing: {_KEYS[key]}")
        return self.values[key]

    def _bad(self, key: str) -> UserError:
        return self.error(f"{key} must be {_KEYS[key]}, got {_shown(self.values[key])}")

    def name(self) -> str:
        name = self._get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise self._bad("name")
        return name

    def switch(self, key: str, default: bool) -> bool:
        if not isinstance(value := self.values.get(key, default), bool):
            raise self._bad(key)
        return value

    def choice(self, key: str, allowed: Collection[str], default: str | None = None) -> str:
        value = default if default and key not in self.values else self._get(key)
        if not isinstance(value, str) or value not in allowed:
            close = difflib.get_close_matches(str(value), allowed, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise self.error(f"{key} must be one of {', '.join(allowed)}, got {_shown(value)}{hint}")
        return value

    def text(self, key: str) -> str:
        return self._as_text(key, self._get(key))

    def _as_text(self, key: str, value: Any) -> str:
        """Numbers may stand without quotes. What YAML took for something else was certainly meant as a text."""
        if isinstance(value, bool) or value is None:
            words = "null and ~" if value is None else "yes, no, on, off, true and false"
            raise self.error(f"{key} holds {_shown(value)}, which is how YAML reads {words} without quotes: put the text in quotes")
        if isinstance(value, list | dict):
            raise self._bad(key)
        if not isinstance(value, str | int | float):
            raise self.error(f"{key} holds {_shown(value)}: put the text in quotes")
        if not str(value).strip() or re.search(r"[\t\r\n]", str(value)):
            raise self.error(f"{key} holds {_shown(value)}, must be a text without tabs and line ends, not an empty one")
        if has_half_pair(str(value)):  # YAML reads "\ud800" as it stands, and no file could hold it
            raise self.error(f"{key} holds {_shown(value)}, which has half of a surrogate pair, no character")
        return str(value)

    def texts(self, key: str, at_least: int, at_most: int | None = None) -> tuple[str, ...]:
        """A list of different texts; a single one may stand without brackets where one is enough."""
        value = self._get(key)
        if not isinstance(value, list):
            if at_least > 1 or key == "entities":
                raise self._bad(key)
            value = [value]
        texts = tuple(self._as_text(key, item) for item in value)
        if len(texts) < at_least or (at_most and len(texts) > at_most):
            raise self._bad(key)
        for index, text in enumerate(texts):
            if text in texts[:index]:
                raise self.error(f"{key} holds {text!r} twice")
        return texts

    def files(self) -> dict[str, str]:
        value = self._get("files")
        if not isinstance(value, dict) or not {"train", "test"} <= set(value) <= {"train", "dev", "test"}:
            raise self._bad("files")
        files = {split: self._as_text("files", name) for split, name in value.items()}
        for split, name in files.items():
            others = [other for other in files if other != split and os.path.normpath(files[other]) == os.path.normpath(name)]
            if others:
                raise self.error(f"files has {name!r} for both {split} and {others[0]}, must be different files")
        return files

    def range(self) -> tuple[float, float]:
        value = self._get("range")
        found = [number for number in value if type(number) in (int, float)] if isinstance(value, list) else []
        numbers = [float(number) for number in found if abs(number) < 1e300]  # no NaN, and nothing that is none as a float
        if len(numbers) != 2 or len(value) != 2 or numbers[0] >= numbers[1]:
            raise self._bad("range")
        return numbers[0], numbers[1]


def _shown(value: Any) -> str:
    """True -> bool True"""
    return "null" if value is None else repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!s:.80}"


# ---- from a description to a task


class CustomTask(Task):
    """What the tasks of all types take from a description; stands before the class of the type, as a mix-in."""

    files_flag = FLAG

    def __init__(self, config: FinetuningConfig, description: TaskDescription):
        self._description = description
        self.name, self.files = description.name, description.files
        self.row_name = "row" if description.format == "json" else "line"
        super().__init__(config)

    def path(self, split: str) -> str:
        """The file that holds `split`, from the folder of the YAML file."""
        split = self._file_split(split)
        path = os.path.join(os.path.dirname(self._description.path), self.files[split])
        if not os.path.isfile(path):
            place = f"that the {split} of {self._description.path} names"
            raise UserError(f"no file {path!r} {place}; files lie in the folder of the YAML file (--{FLAG})")
        return path

    def standin_for(self, split: str) -> str | None:
        return None

    def signature(self, split: str) -> dict[str, Any]:
        return super().signature(split) | {"definition": definition(self._description.to_dict())}

    def read_rows(self, path: str) -> Sequence[Row]:
        description = self._description
        needed = (*description.text, description.label)
        if description.format.startswith("json"):
            return (read_json_rows if description.format == "json" else read_json_lines)(path, needed, FLAG)
        rows = (read_csv if description.format == "csv" else read_tsv)(path, description.columns, description.header, FLAG)
        for column in needed:
            if rows and column not in rows[0][1]:
                found = ", ".join(rows[0][1])
                raise UserError(f"{path}, line 1: no column {column!r} but {found}; is this the file of another task? (--{FLAG})")
        return rows


class CustomClassification(CustomTask, ClassificationTask):
    """One of the labels that a description lists."""

    def __init__(self, config: FinetuningConfig, description: TaskDescription):
        super().__init__(config, description)
        self.text_columns, self.label_column, self.labels = description.text, description.label, description.labels
        self.is_symmetric, self.allows_empty_text = description.symmetric, description.allow_empty_text

    def get_scorer(self) -> Scorer:
        if self._description.metric == "f1":
            return F1Scorer([self.labels.index(self._description.positive_label)])
        if self._description.metric == "macro_f1":
            return F1Scorer(range(len(self.labels)))
        return MatthewsScorer() if self._description.metric == "matthews" else AccuracyScorer()


class CustomRegression(CustomTask, RegressionTask):
    """A number in the range of a description."""

    def __init__(self, config: FinetuningConfig, description: TaskDescription):
        super().__init__(config, description)
        self.text_columns, self.label_column, self.main_metric = description.text, description.label, description.metric
        self.is_symmetric, self.allows_empty_text = description.symmetric, description.allow_empty_text
        self.min_value, self.max_value = description.range


class CustomTagging(CustomTask, EntityTask):
    """A tag for each word; words and tags stand between single spaces, as NaverNER has them."""

    def __init__(self, config: FinetuningConfig, description: TaskDescription):
        self.entities, self.text_columns = description.entities, description.text
        super().__init__(config, description)

    def read_examples(self, path: str) -> list[TaggedExample]:
        (text,), label = self._description.text, self._description.label
        rows = self.read_rows(path)
        return [self.check(path, TaggedExample(number, row[text], tags=tuple(row[label].split(" ")))) for number, row in rows]


_CLASSES: dict[str, type[CustomTask]] = {
    "classification": CustomClassification,
    "regression": CustomRegression,
    "tagging": CustomTagging,
}


def make_task(config: FinetuningConfig, description: TaskDescription) -> Task:
    """The task that `description` describes."""
    return _CLASSES[description.type](config, description)
