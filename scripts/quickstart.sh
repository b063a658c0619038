#!/usr/bin/env bash
# From raw Korean text to a score, with nothing set up before: makes .venv, builds a vocabulary and TFRecords, pre-trains a very
# small ELECTRA, fine-tunes it, and prints what came out. Under 10 minutes on two cores.
#
#   scripts/quickstart.sh                   # on data/sample
#   scripts/quickstart.sh --data_dir=DIR    # on DIR/corpus/*.txt and DIR/nsmc/ratings_{train,test}.txt
#
# Everything is written to runs/quickstart. Run again it goes on where it was; with other data or settings it starts over.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DATA="$ROOT/data/sample"
OUT="$ROOT/runs/quickstart"
LENGTH=64
# Wide and shallow: with its few thousand examples the discriminator finds the replaced tokens within some hundred steps.
PRETRAINING=(
  --hparams=configs/cpu_mini.json
  --model_hparam_overrides='{"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4,
    "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}'
  --generator_layers=1.0 --generator_hidden_size=0.5 --learning_rate=4e-4 --num_warmup_steps=100 --num_train_steps=1000 --do_eval
  --nomixed_precision # processors without bfloat16 units would crawl
)
# One rate for all layers, so that the comparison with random weights is a fair one; at twice this rate one seed in three fails.
FINETUNING=(--task_names=nsmc --max_seq_length="$LENGTH" --num_train_epochs=6 --learning_rate=1.5e-4 --layerwise_lr_decay=0)

for argument in "$@"; do
  case "$argument" in
    --data_dir=?*) DATA="$(cd "${argument#*=}" 2>/dev/null && pwd)" || fail "no folder '${argument#*=}' (--data_dir)" ;;
    --help) usage && exit ;;
    *) fail "unexpected argument '$argument': only --data_dir=DIR is allowed" ;;
  esac
done
for path in corpus nsmc/ratings_train.txt nsmc/ratings_test.txt; do
  [[ -e "$DATA/$path" ]] || fail "there is no $DATA/$path (--data_dir)"
done

# What the results depend on. A run folder made of anything else is replaced, but never a folder that this script did not make.
made_of="$(find "$DATA/corpus" "$DATA"/nsmc/ratings_*.txt "$ROOT/configs/cpu_mini.json" "$ROOT/scripts/quickstart.sh" -type f -exec cksum {} + | sort)"
if [[ "$(cat "$OUT/made_of.txt" 2>/dev/null)" != "$made_of" ]]; then
  [[ ! -e "$OUT" || -f "$OUT/made_of.txt" ]] || fail "$OUT is in the way: it was not made by this script"
  rm -rf "$OUT"
  mkdir -p "$OUT"
  echo "$made_of" >"$OUT/made_of.txt"
fi

# shellcheck disable=SC2119 # no extras
make_environment
cd "$ROOT"
python="$VENV/bin/python"

say "1/5 Vocabulary"
[[ -f "$OUT/vocab.json" ]] ||
  "$python" build_vocab.py --corpus="$DATA/corpus" --output_dir="$OUT" --vocab_size=8000 --unused_size=100 --num_processes=2

say "2/5 TFRecords"
"$python" build_pretraining_dataset.py --corpus_dir="$DATA/corpus" --vocab_file="$OUT/vocab.txt" \
  --output_dir="$OUT/pretrain_tfrecords" --max_seq_length="$LENGTH" --num_out_files=4 --eval_fraction=0.05 --num_processes=2

say "3/5 Pre-training"
"$python" run_pretraining.py --data_dir="$OUT" --model_name=quickstart "${PRETRAINING[@]}"

say "4/5 Fine-tuning the pre-trained model"
"$python" run_finetuning.py --data_dir="$OUT" --model_name=quickstart --raw_data_dir="$DATA" "${FINETUNING[@]}" \
  --results_dir="$OUT/results/pre-trained"

say "5/5 Fine-tuning the same model from random weights, for comparison"
"$python" run_finetuning.py --data_dir="$OUT" --model_name=quickstart --raw_data_dir="$DATA" "${FINETUNING[@]}" \
  --results_dir="$OUT/results/random" --init_checkpoint=none

say "Results (everything is in $OUT)"
"$python" scripts/quickstart_results.py "$OUT"
