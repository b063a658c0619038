"""A folder that the transformers library loads: config.json, model.safetensors, README.md, and the files of the tokenizer.

The logits are those of our network to rounding, and the tokenizer gives the ids of ours; where morphemes have to be cut first, which no
tokenizer of the library does, morpheme_tokenizer.py beside it does.
"""

import os
import pathlib
import shutil
from typing import Any

import safetensors.numpy
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from export import model_card, morpheme_tokenizer
from export.exported_model import WORDPIECE_TYPES, ExportedModel, copy_vocabulary
from finetune.classification.classification_tasks import ClassificationTask, RegressionTask
from finetune.tagging.tagging_tasks import EntityTask
from model import transformers_folder
from model.command import UserError, write_json
from model.modeling import BertConfig
from model.tokenization import MAX_WORD_CHARS, SPECIAL_TOKENS, FullTokenizer

_CLASSES = {"electra": "Electra", "bert": "Bert", "distilbert": "DistilBert"}


def write(model: ExportedModel, folder: str) -> None:
    """Writes all files into `folder`, which exists. Raises UserError for a head that the library does not have."""
    config = make_config(model)
    weights = {
        transformers_folder.to_theirs(name, model.config.model_type): transformers_folder.to_our_layout(name, variable.numpy())
        for name, variable in model.variables_by_name.items()
        if not ("/pooler/" in name and isinstance(model.task, EntityTask))  # of a model of several tasks, one of which reads it
    }
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(safetensors.numpy.save(weights, {"format": "pt"}))
    write_json(os.path.join(folder, transformers_folder.CONFIG), config)
    write_tokenizer(model.tokenizer, folder, model.config, model.settings.max_seq_length if model.settings is not None else None)
    model_card.write(model, folder, config["architectures"][0])


def make_config(model: ExportedModel) -> dict[str, Any]:
    """config.json, under the library's names."""
    config = transformers_folder.to_their_config(model.config, model.embedding_size)
    config["pad_token_id"] = model.tokenizer.pad_id
    config["architectures"] = [_CLASSES[model.config.model_type] + _head_class(model)]
    task = model.task
    if isinstance(task, ClassificationTask):
        config["problem_type"] = "single_label_classification"
    elif isinstance(task, RegressionTask):
        config["problem_type"] = "regression"
    if task is not None:
        labels = model.labels or ["LABEL_0"]  # the library counts outputs by their labels
        config["id2label"] = {f"{index}": label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    return config


def _head_class(model: ExportedModel) -> str:
    if model.task is None:
        return {"discriminator": "ForPreTraining", "generator": "ForMaskedLM"}[model.part]
    assert model.settings is not None
    if isinstance(model.task, EntityTask):
        return "ForTokenClassification"
    if model.settings.classifier_head != "two_layer":
        raise UserError(
            f"the transformers library has no class with the head {model.settings.classifier_head!r} of task {model.task.name}: fine-tune "
            "with --recipe=dialog or --classifier_head=two_layer, or choose another --format"
        )
    return "ForSequenceClassification"


# --- tokenizer -----------------------------------------------------------------------------------------------------------------------


def write_tokenizer(tokenizer: FullTokenizer, folder: str, config: BertConfig, max_length: int | None = None) -> None:
    """vocab.txt, tokenizer.json, tokenizer_config.json; with morphemes morpheme_tokenizer.py; of sentencepiece the model's file instead.

    text_settings.json says how text was cut in training; run_finetuning.py, too, goes by it. `max_length`: of a text, if the model was
    trained on less than it has positions for.
    """
    splitter = tokenizer.splitter
    provenance = tokenizer.provenance()
    names = ("tokenizer_type", "analyzer", "analyzer_version", "do_lower_case", "strip_accents")
    write_json(os.path.join(folder, transformers_folder.TEXT_SETTINGS), {name: provenance[name] for name in names})
    copy_vocabulary(tokenizer, folder)
    if tokenizer.tokenizer_type not in WORDPIECE_TYPES:
        return
    make_tokenizer(tokenizer).save(os.path.join(folder, "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        "model_max_length": max_length or config.max_position_embeddings,
        "do_lower_case": splitter.do_lower_case,
        "strip_accents": splitter.strip_accents,
        "tokenize_chinese_chars": True,
        "model_input_names": ["input_ids", *(["token_type_ids"] if config.type_vocab_size else []), "attention_mask"],
    }
    special = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    write_json(os.path.join(folder, "tokenizer_config.json"), settings | special)
    if tokenizer.tokenizer_type == "mecab_wordpiece":
        if splitter.analyzer.name != "mecab":
            raise UserError(f"only analyzer 'mecab' can be exported, the vocabulary was made with {splitter.analyzer.name!r} (--format)")
        shutil.copy(pathlib.Path(morpheme_tokenizer.__file__), os.path.join(folder, "morpheme_tokenizer.py"))


def make_tokenizer(tokenizer: FullTokenizer) -> tokenizers.Tokenizer:
    """Our WordPiece (without morphemes) as the tokenizers library computes it."""
    made = tokenizers.Tokenizer(
        models.WordPiece(dict(tokenizer.vocab), unk_token=tokenizer.unk_token, max_input_chars_per_word=MAX_WORD_CHARS)
    )
    splitter = tokenizer.splitter
    # What WordSplitter.normalize does, in its order. BertNormalizer's own cleaning would delete characters for private use, and its
    # lower-casing take Hangul apart.
    steps = [
        normalizers.Replace(tokenizers.Regex(r"[\t\n\r\p{Zs}\x{2028}\x{2029}]"), " "),
        normalizers.Replace(tokenizers.Regex(r"[\p{Cc}\p{Cf}\x{FFFD}]"), ""),
        *([normalizers.Lowercase()] if splitter.do_lower_case else []),
        *([normalizers.NFD(), normalizers.Replace(tokenizers.Regex(r"\p{Mn}"), "")] if splitter.strip_accents else []),
        normalizers.NFC(),
        normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False),
    ]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    cls, sep = (tokenizer.cls_token, tokenizer.cls_id), (tokenizer.sep_token, tokenizer.sep_id)
    made.post_processor = processors.BertProcessing(sep, cls)
    made.add_special_tokens(list(SPECIAL_TOKENS))
    return made
