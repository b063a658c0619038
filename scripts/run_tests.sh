#!/usr/bin/env bash
# Makes .venv with the dev extra and runs ruff, mypy and pytest.
#
#   scripts/run_tests.sh [--slow] [--extras=dev,parity] [arguments for pytest]
#
# --slow runs the tests marked slow too; the parity extra (or EXTRAS=dev,parity) adds the referees torch and transformers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

EXTRAS="${EXTRAS:-dev}"
PYTEST=()
for argument in "$@"; do
  case "$argument" in
    --slow) PYTEST+=(-m "slow or not slow") ;;
    --extras=?*) EXTRAS="${argument#*=}" ;;
    --help) usage && exit ;;
    *) PYTEST+=("$argument") ;;
  esac
done

IFS=, read -ra extras <<<"$EXTRAS"
make_environment "${extras[@]}"
cd "$ROOT"
failed=()
say "ruff"
"$VENV/bin/python" -m ruff check . || failed+=(ruff)
say "mypy"
"$VENV/bin/python" -m mypy . || failed+=(mypy)
say "pytest"
"$VENV/bin/python" -m pytest -q "${PYTEST[@]}" || failed+=(pytest)
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}" >&2 && exit 1; }
