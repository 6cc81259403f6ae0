# shellcheck shell=bash
# Makes the virtual environment that the other scripts share, and installs into it. To be sourced.
#
#   ADM_VENV    where it lies             (default .venv beside this folder)
#   ADM_PYTHON  the Python to make it of  (default: the first of python3.12, python3.13, python3.11,
#                                          python3 that is 3.11 or newer)

adm_environment() {  # adm_environment ROOT EXTRAS: where pyproject.toml lies; '' or '[test]'
  local root=$1 venv python='' candidate wanted
  local candidates=(python3.12 python3.13 python3.11 python3)
  [ -z "${ADM_PYTHON:-}" ] || candidates=("$ADM_PYTHON")
  venv=${ADM_VENV:-$root/.venv}
  # Without the mark of a finished installation, whatever lies there was broken off.
  if [ ! -e "$venv/.adm_installed" ]; then
    for candidate in "${candidates[@]}"; do
      if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
          >/dev/null 2>&1; then
        python=$candidate
        break
      fi
    done
    if [ -z "$python" ]; then
      echo "No Python 3.11 or newer with venv was found (tried ${candidates[*]}):" \
        "install one (Debian: apt install python3 python3-venv), or name it in ADM_PYTHON." >&2
      return 2
    fi
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
      echo "$venv is not a virtual environment: name another place in ADM_VENV." >&2
      return 2
    fi
    echo "Making a virtual environment in $venv ..."
    "$python" -m venv --clear "$venv" || return 1
  fi
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
  # Again only if what is to be installed has changed.
  wanted="$root$2 $(cksum < "$root/pyproject.toml")"
  if ! grep -qsxF "$wanted" "$venv/.adm_installed"; then
    echo "Installing ..."
    python -m pip install --quiet --disable-pip-version-check --editable "$root$2" || return 1
    echo "$wanted" >> "$venv/.adm_installed"
  fi
}
