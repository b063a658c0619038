#!/usr/bin/env bash
# Downloads the benchmark's task sets from where they are published, checks SHA-256, and lays them out for run_finetuning.py.
#
#   scripts/download_data.sh --output_dir=DIR [flags]
#
#   --output_dir=DIR             gets a folder for each task (run_finetuning.py --raw_data_dir=DIR) and SHA256SUMS
#   --tasks=NAME,NAME            default: nsmc,question-pair,hate-speech,naver-ner,kornli,korsts
#   --accept_naver_ner_licence   download naver-ner too; without it the script says what its agreement asks, and leaves it out
#   --base_url=URL               a mirror with the same paths; default: https://raw.githubusercontent.com
#   --sources=FILE               another table of files, sums and paths; default: scripts/data_sources.tsv
#
# Needs Python and nothing else. A file that is there and right is not fetched again; one that is there and differs is left alone.
# What could not be had is listed at the end, with exit code 1: the same command tries again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

output_dir=
tasks=nsmc,question-pair,hate-speech,naver-ner,kornli,korsts
accepted=no
base_url=https://raw.githubusercontent.com
sources="$ROOT/scripts/data_sources.tsv"
for argument in "$@"; do
  case "$argument" in
    --output_dir=?*) output_dir="${argument#*=}" ;;
    --tasks=?*) tasks="${argument#*=}" ;;
    --accept_naver_ner_licence) accepted=yes ;;
    --base_url=http://?* | --base_url=https://?*) base_url="${argument#*=}" ;;
    --base_url=*) fail "'${argument#*=}' is no address: it must begin with http:// or https:// (--base_url)" ;;
    --sources=?*) sources="${argument#*=}" ;;
    --help) usage && exit ;;
    *) fail "unexpected argument '$argument': see --help" ;;
  esac
done
[[ -n "$output_dir" ]] || fail "--output_dir is required: the folder that gets a folder for each task"
[[ ! -e "$output_dir" || -d "$output_dir" ]] || fail "'$output_dir' is not a folder (--output_dir)"
[[ -f "$sources" ]] || fail "no file '$sources' (--sources)"
known="$(sed -n 's|^\([^#/]*\)/.*|\1|p' "$sources" | uniq)"
for task in ${tasks//,/ }; do
  grep -qFx -e "$task" <<<"$known" || fail "unknown task '$task' (--tasks): allowed are ${known//$'\n'/, }"
done
python="$(find_python)"
exec "$python" "$ROOT/scripts/download_data.py" "$output_dir" "$tasks" "$accepted" "${base_url%/}" "$sources"
