#!/usr/bin/env bash
# Pre-trains on several machines, or in several processes of this one, from TFRecords that are built: TF_CONFIG for each worker.
#
#   scripts/pretrain_multiworker.sh --data_dir=DIR --workers=HOST:PORT,HOST:PORT --index=N [flags] [-- flags for run_pretraining.py]
#   scripts/pretrain_multiworker.sh --data_dir=DIR --local_workers=N [flags] [-- flags for run_pretraining.py]
#
#   --data_dir=DIR         vocab.txt and pretrain_tfrecords/, on a file system that all workers share, or gs://; gets models/MODEL_NAME/
#   --workers=LIST         addresses of all workers, the same list on every machine; the first one writes the checkpoints
#   --index=N              which of them this machine is, counted from 0
#   --local_workers=N      instead of these two: N workers on this machine, over loopback
#   --model_name=NAME      default: dialog_koelectra_small
#   --hparams=FILE         default: configs/dialog_koelectra_small.json
#   --max_seq_length=N     of the TFRecords; default: 128, as in that file
#   --dry_run              print the commands and do nothing
#
# Start it on every machine with the same flags but for --index. Signals go on to the workers; when one fails, the others on this
# machine are ended, and the exit code is that of the first that failed. The same commands go on from the last checkpoint.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/pretrain_steps.sh"

parse_flags "data_dir workers index local_workers" "$@"
[[ -n "${data_dir:-}" ]] || fail "--data_dir is required: the folder with vocab.txt and pretrain_tfrecords/"
[[ "$data_dir" == *://* || -d "$data_dir/pretrain_tfrecords" ]] ||
  fail "no folder '$data_dir/pretrain_tfrecords': run build_pretraining_dataset.py (--data_dir)"
check_hparams
if [[ -n "${local_workers:-}" ]]; then
  [[ -z "${workers:-}${index:-}" ]] || fail "--local_workers excludes --workers and --index"
  [[ "$local_workers" =~ ^[1-9][0-9]*$ ]] || fail "local_workers must be a number from 1 on, got '$local_workers' (--local_workers)"
else
  [[ "${workers:-}" =~ ^[^,\":]+:[0-9]+(,[^,\":]+:[0-9]+)*$ ]] || fail "workers must be HOST:PORT,HOST:PORT,..., got '${workers:-}' (--workers)"
  IFS=, read -ra addresses <<<"$workers"
  [[ "${index:-}" =~ ^[0-9]+$ && "$index" -lt ${#addresses[@]} ]] ||
    fail "index must be a number from 0 to $((${#addresses[@]} - 1)), got '${index:-}' (--index)"
fi

if [[ -z "$dry_run" ]]; then
  # shellcheck disable=SC2046 # a word or none
  make_environment $(command -v nvidia-smi >/dev/null && echo gpu)
fi
python="$VENV/bin/python"
indices=("${index:-}")
if [[ -n "${local_workers:-}" ]]; then
  mapfile -t indices < <(seq 0 $((local_workers - 1)))
  free_ports='import socket, sys
sockets = [socket.create_server(("localhost", 0)) for _ in sys.argv[1:]]
print(*(socket.getsockname()[1] for socket in sockets), sep="\n")'
  mapfile -t addresses < <("$(find_python)" -c "$free_ports" "${indices[@]}" | sed 's/^/localhost:/')
fi
cluster="$(printf '"%s", ' "${addresses[@]}")"

set -m # workers in process groups of their own: Ctrl-C reaches them once, through us
pids=()
told= # the signal that was passed on
for signal in TERM INT; do
  # shellcheck disable=SC2064 # the signal of now
  trap "told=$signal; kill -$signal \"\${pids[@]}\" 2>/dev/null || true" "$signal"
done
for number in "${indices[@]}"; do
  command=(env TF_CONFIG="{\"cluster\": {\"worker\": [${cluster%, }]}, \"task\": {\"type\": \"worker\", \"index\": $number}}"
    "$python" "$ROOT/run_pretraining.py" --data_dir="$data_dir" --model_name="$model_name" --hparams="$hparams"
    --max_seq_length="$max_seq_length" --do_eval ${rest[@]+"${rest[@]}"})
  if [[ -n "$dry_run" ]]; then
    step "${command[@]}"
  else
    "${command[@]}" &
    pids+=($!)
  fi
done

# The first failure counts: the others then only fail for want of that worker, or wait for it.
status=0
while [[ -n "$(jobs -pr)" ]]; do
  code=0
  wait -n || code=$?
  if [[ $code -ne 0 && -z "$told" ]]; then
    status=$code told=TERM
    kill -TERM "${pids[@]}" 2>/dev/null || true
    for ((second = 0; second < 30; second++)); do
      [[ -z "$(jobs -pr)" ]] || sleep 1
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true # a worker that waits for another hears no signal
  fi
done
for pid in ${pids[@]+"${pids[@]}"}; do
  code=0
  wait "$pid" || code=$?
  [[ $status -ne 0 ]] || status=$code
done
exit "$status"
