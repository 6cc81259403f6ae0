#!/usr/bin/env bash
# From a fresh checkout to classifier-guided samples: makes a virtual environment, installs, and runs
# `adm demo`, to which all arguments are passed. A second run reuses what is there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
adm_environment "$root" ''
exec adm demo "$@"
