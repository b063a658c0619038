"""Makes a vocabulary from a text corpus: vocab.txt, and vocab.json, which says how it was made and how good it is."""

from typing import Any

from absl import logging

from model import command, hparams
from pretrain.vocab_builder import VocabConfig, build


def main() -> None:
    """Reads the flags, builds, and prints how it went."""
    logging.set_verbosity(logging.INFO)
    config = VocabConfig(**hparams.check(VocabConfig, hparams.collect(VocabConfig, None)))
    report = build(config)
    print(f"{config.output_dir}/vocab.txt: {report['tokenizer']['vocab_size']} entries; {_quality(report['held_back'])}")


def _quality(held_back: dict[str, Any]) -> str:
    if not held_back["eojeols"]:
        return "too little text to hold lines back for a measurement"
    return (
        f"on {held_back['lines']} lines held back: {held_back['pieces_per_eojeol']} pieces per eojeol, "
        f"{100 * held_back['unk_rate_of_eojeols']:.2g} % of eojeols with [UNK]"
    )


if __name__ == "__main__":
    hparams.define_flags(VocabConfig)
    command.run(main)
