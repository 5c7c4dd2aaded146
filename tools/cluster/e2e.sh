#!/usr/bin/env bash
# Runs the tests that need a cluster, on KUBECONFIG's or on one of this machine's own, which is
# gone again afterwards, however the tests end.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${KUBECONFIG:-}" ] && [ -z "${KEEP_CLUSTER:-}" ]; then
  trap '.venv/bin/python tools/cluster down' EXIT
fi
.venv/bin/python -m pytest tests/e2e "$@"
