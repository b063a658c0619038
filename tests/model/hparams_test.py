"""model/hparams.py: configurations from flags and JSON, with names and types checked."""

import dataclasses
import json

import pytest
from absl import flags

from model import hparams
from model.command import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    test_rate: float = hparams.option(0.5, "a float")
    test_steps: int = hparams.option(10, "an int")
    test_train: bool = hparams.option(True, "a switch")
    test_size: str = hparams.option("small", "a choice", ("small", "base"))
    test_name: str = hparams.option("", "a string")
    test_limit: int | None = hparams.option(None, "an int or nothing")
    test_precision: str | None = hparams.option(None, "a choice or nothing", ("float32", "bfloat16"))
    test_overrides: dict = hparams.option({}, "an object")
    test_tasks: list[str] = hparams.option(["nsmc"], "a list")


@pytest.fixture
def parse():
    """parse(*arguments) -> what `collect` finds in them; the flags live for one test."""
    hparams.define_flags(Config, skip=("test_name",))

    def run(*arguments: str, hparams_text: str | None = None) -> dict:
        flags.FLAGS(["program", *arguments])
        return hparams.collect(Config, hparams_text, skip=("test_name",))

    yield run
    for field in dataclasses.fields(Config):
        if field.name in flags.FLAGS:
            delattr(flags.FLAGS, field.name)


def test_defaults_of_dicts_are_not_shared():
    Config().test_overrides["a"] = 1
    assert Config().test_overrides == {}


def test_flags_not_given_leave_no_trace(parse):
    assert parse() == {}


def test_every_kind_of_flag_is_parsed_to_its_type(parse):
    found = parse(
        "--test_rate=1e-4",
        "--test_steps=3",
        "--notest_train",
        "--test_size=base",
        "--test_limit=7",
        "--test_precision=bfloat16",
        '--test_overrides={"hidden_size": 64}',
        '--test_tasks=["nsmc", "ner"]',
    )
    assert found == {
        "test_rate": 1e-4,
        "test_steps": 3,
        "test_train": False,
        "test_size": "base",
        "test_limit": 7,
        "test_precision": "bfloat16",
        "test_overrides": {"hidden_size": 64},
        "test_tasks": ["nsmc", "ner"],
    }
    assert Config(**hparams.check(Config, found)).test_overrides == {"hidden_size": 64}


@pytest.mark.parametrize("argument", ["--test_size=huge", "--test_steps=4.5", "--test_rate=fast", "--test_train=4", "--test_name=skipped"])
def test_flags_of_a_wrong_type_or_that_were_skipped_are_usage_errors(parse, argument):
    with pytest.raises(flags.Error):
        parse(argument)


def test_a_flag_that_is_not_json_is_named(parse):
    with pytest.raises(UserError, match="--test_overrides is not JSON"):
        parse("--test_overrides={hidden_size: 64}")


def test_single_flags_win_over_hparams(parse):
    assert parse("--test_steps=3", hparams_text='{"test_steps": 4, "test_rate": 2}') == {"test_steps": 3, "test_rate": 2}


def test_hparams_are_json_text_or_a_file(tmp_path):
    values = {"test_steps": 4, "test_name": "모델"}
    path = tmp_path / "hparams.json"
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    assert hparams.read_hparams(str(path)) == values
    assert hparams.read_hparams("  " + json.dumps(values)) == values


def test_hparams_that_cannot_be_read_are_explained(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("[1, 2]")
    for text, word in [
        (str(path), "must be a JSON object"),
        ("{test_steps: 4}", "is not JSON"),
        ("nowhere.json", "no file 'nowhere.json'"),
    ]:
        with pytest.raises(UserError, match=word) as error:
            hparams.read_hparams(text)
        assert "--hparams" in str(error.value)


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match="unknown hparam 'test_step' .*did you mean 'test_steps'"):
        hparams.check(Config, {"test_step": 3})
    with pytest.raises(UserError, match="unknown hparam 'zzz' .*known: .*test_limit.*test_train"):
        hparams.check(Config, {"zzz": 3})


@pytest.mark.parametrize(
    "name, value",
    [
        ("test_train", "False"),  # the original took these two strings
        ("test_steps", "4"),
        ("test_steps", 4.0),
        ("test_steps", True),
        ("test_steps", None),
        ("test_train", 1),
        ("test_rate", True),
        ("test_rate", "1e-4"),
        ("test_rate", float("nan")),
        ("test_rate", float("inf")),
        ("test_limit", 1.5),
        ("test_size", "huge"),
        ("test_precision", "float64"),
        ("test_overrides", [1]),
        ("test_tasks", "nsmc"),
    ],
)
def test_a_mistyped_value_is_refused_and_named(name, value):
    with pytest.raises(UserError) as error:
        hparams.check(Config, {name: value})
    assert repr(name) in str(error.value) and repr(value) in str(error.value) and f"--{name}" in str(error.value)


def test_what_is_allowed_passes_and_integers_become_floats():
    checked = hparams.check(Config, {"test_rate": 2, "test_limit": None, "test_precision": None, "test_tasks": [], "test_size": "base"})
    assert checked == {"test_rate": 2.0, "test_limit": None, "test_precision": None, "test_tasks": [], "test_size": "base"}
    assert isinstance(checked["test_rate"], float)
