#!/usr/bin/env bash
# Installs what the tests need and runs them all; arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
adm_environment '[test]'
exec python -m pytest "$@"
