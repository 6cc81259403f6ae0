#!/usr/bin/env bash
# Installs what the tests need and runs them all; arguments are passed to pytest.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
adm_environment "$root" '[test]'
cd "$root"
exec python -m pytest -n 2 "$@"
