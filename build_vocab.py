"""Makes a vocabulary from a text corpus: vocab.txt, and vocab.json, which says how it was made and how good it is."""

from absl import logging

from model import command, hparams
from pretrain.vocab_builder import VocabConfig, build


def main() -> None:
    """Reads the flags, builds, and prints what came out."""
    logging.set_verbosity(logging.INFO)
    config = VocabConfig(**hparams.check(VocabConfig, hparams.collect(VocabConfig, None)))
    report = build(config)
    held_back = report["held_back"]
    print(
        f"{config.output_dir}/vocab.txt: {report['tokenizer']['vocab_size']} entries; on {held_back['lines']} lines held back: "
        f"{held_back['pieces_per_eojeol']} pieces per eojeol, {held_back['unk_rate_of_eojeols']} of the eojeols with [UNK]"
    )


if __name__ == "__main__":
    hparams.define_flags(VocabConfig)
    command.run(main)
