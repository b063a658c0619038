#!/usr/bin/env bash
# Pre-trains Dialog-KoELECTRA-Small from a folder of text on a Cloud TPU: vocabulary and TFRecords on this machine, a copy of
# them in a bucket, pre-training on the TPU.
#
#   scripts/pretrain_tpu.sh --corpus_dir=DIR --output_dir=gs://BUCKET/DIR [flags] [-- flags for run_pretraining.py]
#
#   --corpus_dir=DIR       text: one sentence a line, a blank line between documents; .gz too
#   --output_dir=gs://...  gets vocab.txt, pretrain_tfrecords/ and models/MODEL_NAME/
#   --work_dir=DIR         where vocabulary and TFRecords are built; default: runs/MODEL_NAME
#   --tpu_name=NAME        default: local, the TPU of this TPU VM; --tpu_zone=ZONE and --gcp_project=PROJECT where it is another's
#   --model_name=NAME      default: dialog_koelectra_small
#   --hparams=FILE         default: configs/dialog_koelectra_small.json
#   --max_seq_length=N     of the TFRecords; default: 128, as in that file
#   --num_processes=N      for vocabulary and TFRecords; default: all processors
#   --dry_run              print the commands and do nothing
#
# Meant for a TPU VM whose Python has a TensorFlow for TPUs and the rest of what setup.py asks for (docs/tpu.md says how; PYTHON=... picks
# another Python). Run again after an interruption it goes on where it was.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/pretrain_steps.sh"

tpu_name=local
parse_flags "corpus_dir output_dir num_processes work_dir tpu_name tpu_zone gcp_project" "$@"
[[ -n "${corpus_dir:-}" ]] || fail "--corpus_dir is required: the folder of text to train on"
[[ "${output_dir:-}" == gs://?* ]] || fail "--output_dir must be a gs:// folder, since a TPU reads from a bucket, got '${output_dir:-}'"
check_input "$corpus_dir"

python="${PYTHON:-python3}"
work_dir="${work_dir:-$ROOT/runs/$model_name}"
[[ -n "$dry_run" ]] || "$python" -c 'import tensorflow' 2>/dev/null ||
  fail "$python has no TensorFlow: use a TPU VM with one (docs/tpu.md), or set PYTHON=/path/to/python3"

build_data "$python" "$corpus_dir" "$work_dir"
step gcloud storage cp "$work_dir/vocab.txt" "$work_dir/vocab.json" "$output_dir/"
step gcloud storage rsync "$work_dir/pretrain_tfrecords" "$output_dir/pretrain_tfrecords"
step "$python" "$ROOT/run_pretraining.py" --data_dir="$output_dir" --model_name="$model_name" --hparams="$hparams" \
  --max_seq_length="$max_seq_length" --do_eval --use_tpu --tpu_name="$tpu_name" ${tpu_zone:+--tpu_zone="$tpu_zone"} \
  ${gcp_project:+--gcp_project="$gcp_project"} ${rest[@]+"${rest[@]}"}
