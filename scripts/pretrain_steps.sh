# Sourced by pretrain_gpu.sh, pretrain_tpu.sh and pretrain_multiworker.sh: their flags, and the steps they share.
# shellcheck shell=bash

# shellcheck disable=SC2034 # used by the scripts that source this
model_name=dialog_koelectra_small
hparams="$ROOT/configs/dialog_koelectra_small.json"
max_seq_length=128
num_processes="$(nproc)"
dry_run=
rest=() # flags for run_pretraining.py

# parse_flags "NAMES" ARGUMENT...: sets the variable NAME for each --NAME=VALUE; what follows -- goes to run_pretraining.py.
parse_flags() {
  local allowed=" $1 model_name hparams max_seq_length " argument name
  shift
  while [[ $# -gt 0 ]]; do
    argument="$1"
    shift
    name="${argument%%=*}"
    name="${name#--}"
    case "$argument" in
      --help) usage && exit ;;
      --dry_run) dry_run=1 ;;
      --) rest=("$@") && return ;;
      --*=?*) [[ "$allowed" == *" $name "* ]] || fail "unknown flag --$name: see --help" && printf -v "$name" %s "${argument#*=}" ;;
      *) fail "unexpected argument '$argument': write flags as --name=value, see --help" ;;
    esac
  done
}

# step COMMAND...: runs it, or with --dry_run prints it.
step() {
  if [[ -n "$dry_run" ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# check_input CORPUS_DIR: what would otherwise only be found out after installing.
check_input() {
  [[ -e "$1" ]] || fail "no folder '$1' (--corpus_dir)"
  check_hparams
}

check_hparams() { [[ -f "$hparams" ]] || fail "no file '$hparams' (--hparams)"; }

# build_data PYTHON CORPUS_DIR OUTPUT_DIR: vocabulary and TFRecords with Dialog-KoELECTRA's numbers; finished parts are kept.
build_data() {
  if [[ -n "$dry_run" || ! -f "$3/vocab.json" ]]; then
    step "$1" "$ROOT/build_vocab.py" --corpus="$2" --output_dir="$3" --vocab_size=40000 --unused_size=500 \
      --limit_alphabet=6000 --min_frequency=3 --num_processes="$num_processes"
  fi
  step "$1" "$ROOT/build_pretraining_dataset.py" --corpus_dir="$2" --vocab_file="$3/vocab.txt" \
    --output_dir="$3/pretrain_tfrecords" --max_seq_length="$max_seq_length" --num_processes="$num_processes"
}
