"""Shows what pre-training will see of a TFRecord set, as text; --check verifies every record of it.

python inspect_dataset.py --data=my_data/pretrain_tfrecords --vocab_file=my_data/vocab/vocab.txt
python inspect_dataset.py --data=my_data/pretrain_tfrecords --vocab_file=my_data/vocab/vocab.txt --check --num_processes=2
"""

from absl import flags

from model import command, hparams
from pretrain.dataset_inspector import InspectConfig, inspect


def define_flags() -> None:
    flags.DEFINE_string("hparams", None, "JSON object or JSON file with the settings of a pre-training run: its seed and masking are shown")
    hparams.define_flags(InspectConfig)


def main() -> None:
    inspect(InspectConfig.create(flags.FLAGS.hparams, hparams.collect(InspectConfig, None)))


if __name__ == "__main__":
    define_flags()
    command.run(main)
