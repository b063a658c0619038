#!/usr/bin/env bash
# Pre-trains Dialog-KoELECTRA-Small from a folder of text on the GPUs of this machine: vocabulary, TFRecords, pre-training.
#
#   scripts/pretrain_gpu.sh --corpus_dir=DIR --output_dir=DIR [flags] [-- flags for run_pretraining.py]
#
#   --corpus_dir=DIR       text: one sentence a line, a blank line between documents; .gz too
#   --output_dir=DIR       gets vocab.txt, pretrain_tfrecords/ and models/MODEL_NAME/
#   --model_name=NAME      default: dialog_koelectra_small
#   --hparams=FILE         default: configs/dialog_koelectra_small.json
#   --max_seq_length=N     of the TFRecords; default: 128, as in that file
#   --num_processes=N      for vocabulary and TFRecords; default: all processors
#   --dry_run              print the commands and do nothing
#
# Makes .venv with TensorFlow's CUDA libraries. Run again after an interruption it goes on where it was.
# Out of memory? Add: -- --gradient_accumulation_steps=2
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/pretrain_steps.sh"

parse_flags "corpus_dir output_dir num_processes" "$@"
[[ -n "${corpus_dir:-}" ]] || fail "--corpus_dir is required: the folder of text to train on"
[[ -n "${output_dir:-}" ]] || fail "--output_dir is required: the folder for vocabulary, TFRecords and models"
check_input "$corpus_dir"
[[ -n "$dry_run" ]] || make_environment gpu

python="$VENV/bin/python"
build_data "$python" "$corpus_dir" "$output_dir"
step "$python" "$ROOT/run_pretraining.py" --data_dir="$output_dir" --model_name="$model_name" --hparams="$hparams" \
  --max_seq_length="$max_seq_length" --do_eval ${rest[@]+"${rest[@]}"}
