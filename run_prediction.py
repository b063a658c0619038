"""Applies a fine-tuned model to texts: labels with probabilities, names with their places, or scores.

python run_prediction.py --model=DIR --input=reviews.tsv --output=predictions.jsonl
echo "정말 재미있다" | python run_prediction.py --model=DIR
"""

from finetune.prediction_files import PredictionConfig, predict_file
from model import command, devices, hparams


def main() -> None:
    devices.give_batches_a_core_each()
    predict_file(PredictionConfig.create(hparams.collect(PredictionConfig, None)))


if __name__ == "__main__":
    hparams.define_flags(PredictionConfig)
    command.run(main)
