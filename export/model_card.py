"""README.md of an exported folder: what the model is, where it comes from, and how to use it."""

import os
import textwrap
from typing import Any

from export.exported_model import WORDPIECE_TYPES, ExportedModel
from model.command import write_atomically

_USES = {
    "ForPreTraining": "print(model(**batch).logits.sigmoid())  # for each token, the probability that it was replaced",
    "ForMaskedLM": "print(model(**batch).logits.argmax(-1))  # for each token, the likeliest one in its place",
    "ForSequenceClassification": "print(model(**batch).logits)",
    "ForTokenClassification": "print(model(**batch).logits.argmax(-1))  # tags; of a word, that of its first piece counts",
}
_TITLES = {
    "discriminator": "the discriminator of an ELECTRA model for Korean",
    "generator": "the generator of an ELECTRA model for Korean",
    "finetuned": "a Korean model fine-tuned for",
}


def write(model: ExportedModel, folder: str, class_name: str) -> None:
    """Writes README.md; `class_name`: of the transformers library, such as ElectraForPreTraining."""
    tokenizer = model.tokenizer
    title = _TITLES[model.part] + (f" {model.task.name}" if model.task is not None else "")
    lines = ["---", "language: ko", "library_name: transformers", "tags: [electra, korean]", "---", ""]
    lines += [f"# {title[0].upper()}{title[1:]}", "", _use(model, class_name), "", "## What it is", ""]
    lines += [f"- {name}: {value}" for name, value in _facts(model).items()]
    if tokenizer.tokenizer_type == "mecab_wordpiece":
        lines += ["", "## Text to ids", "", _MORPHEMES.format(version=tokenizer.splitter.analyzer.version)]
    elif tokenizer.tokenizer_type != "wordpiece":
        lines += ["", "## Text to ids", "", _SENTENCEPIECE]
    write_atomically(os.path.join(folder, "README.md"), "\n".join(lines) + "\n")


_SENTENCEPIECE = """\
The vocabulary is a sentencepiece model, which AutoTokenizer does not load from this folder: cut text with the package sentencepiece and
look the pieces up in vocab.txt, where there is one (models of KoBERT's kind), else in the model. Ids stand between [CLS] and [SEP]."""
_MORPHEMES = """\
The model was trained on text that was cut into morphemes by MeCab before pieces were looked up. AutoTokenizer does not do that and
gives other ids: use `morpheme_tokenizer.py`, which lies beside this file, with the versions that the vocabulary was made with
({version}). The first morpheme of a word is looked up as it is, the later ones with ## before them: 심각합니다 -> 심각 ##합니다."""


def _use(model: ExportedModel, class_name: str) -> str:
    kind = next(kind for kind in _USES if class_name.endswith(kind))
    if model.tokenizer.tokenizer_type == "mecab_wordpiece":
        imports, made = "from morpheme_tokenizer import MorphemeTokenizer  # with FOLDER on sys.path", 'MorphemeTokenizer("FOLDER")'
    else:
        imports, made = "from transformers import AutoTokenizer", 'AutoTokenizer.from_pretrained("FOLDER")'
    if model.tokenizer.tokenizer_type not in WORDPIECE_TYPES:
        return f'```python\nfrom transformers import {class_name}\n\nmodel = {class_name}.from_pretrained("FOLDER")\n```'
    code = f"""\
        from transformers import {class_name}
        {imports}

        model, tokenizer = {class_name}.from_pretrained("FOLDER"), {made}
        batch = tokenizer(["정말 재미있는 영화였다."], return_tensors="pt")
        {_USES[kind]}"""
    return f"```python\n{textwrap.dedent(code)}\n```"


def _facts(model: ExportedModel) -> dict[str, Any]:
    config, tokenizer = model.config, model.tokenizer
    layers = f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
    case = "lower-cased" if tokenizer.splitter.do_lower_case else "cased"
    pieces = f"{tokenizer.vocab_size:,} pieces, {tokenizer.tokenizer_type}, {case}"
    of = "files" if os.path.isdir(model.start.prefix or "") else "index, which holds the check sum of every variable,"
    facts = {
        "architecture": f"{config.model_type}, {layers}, embeddings of {model.embedding_size}, {config.max_position_embeddings} positions",
        "parameters": f"{model.num_parameters:,}",
        "vocabulary": f"{pieces}, SHA-256 in training {tokenizer.provenance()['vocab_sha256']}",
        "weights": f"`{os.path.basename(model.start.prefix or '')}`, SHA-256 of its {of} {model.start.weights_hash()}",
    }
    if model.settings is not None:
        settings = model.settings
        facts["fine-tuning"] = (
            f"recipe {settings.recipe}, learning rate {settings.learning_rate:g}, {settings.num_train_epochs:g} epochs, batches of "
            f"{settings.train_batch_size}, at most {settings.max_seq_length} pieces, seed {settings.seed}"
        )
    return facts
