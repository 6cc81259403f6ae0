# Makes the virtual environment that the other scripts share, and installs into it. To be sourced.
#
#   ADM_VENV    where it lies             (default .venv beside this folder)
#   ADM_PYTHON  the Python to make it of  (default: the first of python3.12, python3.13, python3.11,
#                                          python3 that is 3.11 or newer)

adm_environment() {  # adm_environment EXTRAS: '' or '[test]'
  local root venv python candidate
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  venv=${ADM_VENV:-$root/.venv}
  if [ ! -x "$venv/bin/python" ]; then
    for candidate in ${ADM_PYTHON:-python3.12 python3.13 python3.11 python3}; do
      if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
          >/dev/null 2>&1; then
        python=$candidate
        break
      fi
    done
    if [ -z "${python:-}" ]; then
      echo "No Python 3.11 or newer with venv was found (tried ${ADM_PYTHON:-python3.12 python3.13 python3.11 python3}):" \
        "install one (Debian: apt install python3 python3-venv), or name it in ADM_PYTHON." >&2
      return 2
    fi
    echo "Making a virtual environment in $venv ..."
    "$python" -m venv "$venv" || { rm -rf "$venv"; return 1; }
  fi
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
  # Again only if what is to be installed has changed.
  local wanted
  wanted="$root$1 $(cksum < "$root/pyproject.toml")"
  if ! grep -qsxF "$wanted" "$venv/.adm_installed"; then
    echo "Installing ..."
    python -m pip install --quiet --disable-pip-version-check --editable "$root$1" || return 1
    echo "$wanted" >> "$venv/.adm_installed"
  fi
}
