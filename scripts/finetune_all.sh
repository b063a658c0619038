#!/usr/bin/env bash
# Fine-tunes a pre-trained model on the six tasks of the benchmark and prints the table, with the published rows beside ours.
#
#   scripts/finetune_all.sh                                            # the quickstart's model on data/sample
#   scripts/finetune_all.sh --data_dir=DIR --model_name=NAME [flags]   # DIR/models/NAME on DIR/finetuning_data/TASK/
#
# Other flags go to run_finetuning.py: --raw_data_dir=DIR (a folder per task), --recipe=dialog, --num_trials=3,
# --init_checkpoint=none, --hparams=FILE, ... Each task gets a model of its own; --multi_task trains one for all. All six tasks, a
# model for each and the recipe dialog are flags of this script: only a flag changes them, not what FILE says.
# Some tasks only: --task_names=nsmc,question-pair,hate-speech,kornli,korsts (Naver NER cannot be downloaded by everybody).
# benchmark.json, .md and .html are written to RESULTS_DIR/benchmark-*. Run again after an interruption it goes on where it was.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SAMPLE="$ROOT/data/sample"
QUICKSTART="$ROOT/runs/quickstart"
flags=("--task_names=nsmc,question-pair,hate-speech,naver-ner,kornli,korsts" --nomulti_task --recipe=dialog)

[[ "${1:-}" != --help ]] || { usage && exit; }
for argument in "$@"; do
  [[ "$argument" == --* ]] || fail "unexpected argument '$argument': write flags as --name=value, see --help"
done
if [[ $# -eq 0 ]]; then
  [[ -d "$QUICKSTART/models/quickstart" ]] || fail "there is no $QUICKSTART: run scripts/quickstart.sh first, or give --data_dir and --model_name"
  # As the quickstart fine-tunes it: a small model on little data wants higher rates than those of the recipes.
  flags+=(--data_dir="$QUICKSTART" --model_name=quickstart --raw_data_dir="$SAMPLE" --recipe=google --max_seq_length=64
    --learning_rate=1.5e-4 --layerwise_lr_decay=0 --num_train_epochs=6)
fi

# shellcheck disable=SC2119 # no extras
make_environment
exec "$VENV/bin/python" "$ROOT/run_finetuning.py" "${flags[@]}" "$@"
