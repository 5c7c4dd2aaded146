#!/usr/bin/env bash
# Runs the tests that need a cluster, on KUBECONFIG's or on one of this machine's own, which is
# gone again afterwards, however the tests end. With KEEP_CLUSTER set it stays, and only those
# tests run that stop nothing of it.
set -euo pipefail
cd "$(dirname "$0")/../.."
select=()
if [ -n "${KEEP_CLUSTER:-}" ]; then
  select=(-m "not disruptive")
elif [ -z "${KUBECONFIG:-}" ]; then
  trap '.venv/bin/python tools/cluster down' EXIT
fi
.venv/bin/python -m pytest "${select[@]}" "$@"
