#!/usr/bin/env bash
# Live clients through the balancer while nodes are killed, drained, cut off and restarted.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "$0")/scripts/lib/common.sh"
# shellcheck source=scripts/lib/setup.sh
. "$ROOT/scripts/lib/setup.sh"

need python3 python3
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$ROOT/scripts/lib exec python3 -m chaos.demo "$@"
