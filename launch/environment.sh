# shellcheck shell=bash
# Makes the virtual environment that the other scripts share, and installs into it. To be sourced.
#
#   ADM_VENV    where it lies             (default .venv beside this folder)
#   ADM_PYTHON  the Python to make it of  (default: the first of python3.12, python3.13, python3.11,
#                                          python3 that is 3.11 or newer; else one that uv fetches)

adm_fetch_python() {  # prints the path of a Python 3.12 that uv fetches, or why there is none
  local uv=uv folder said code=1
  folder=$(mktemp -d) || return
  if ! command -v uv > /dev/null; then
    uv=$folder/bin/uv
    # Into a folder of its own: --user is refused inside environments and on some systems.
    said=$(python3 -m pip install --quiet --disable-pip-version-check --target "$folder" uv 2>&1)
  fi
  # Its own Python only: those of the system and of environments have been tried, and may lack venv.
  if command -v "$uv" > /dev/null \
      && said=$(UV_PYTHON_INSTALL_BIN=0 "$uv" python install 3.12 2>&1) \
      && said=$(UV_PYTHON_PREFERENCE=only-managed "$uv" python find --system 3.12 2>&1); then
    code=0
  fi
  rm -rf "$folder"
  echo "${said##*$'\n'}"  # of a failure the last line says the cause
  return "$code"
}

adm_find_python() {  # prints the path of a Python that can make the environment, or says why not
  local candidate missing way_out python
  local candidates=(python3.12 python3.13 python3.11 python3)
  [ -z "${ADM_PYTHON:-}" ] || candidates=("$ADM_PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  missing="No Python 3.11 or newer with venv was found (tried ${candidates[*]})"
  way_out='install one (Debian: apt install python3 python3-venv), or name it in ADM_PYTHON.'
  if [ -n "${ADM_PYTHON:-}" ]; then
    echo "$missing: $way_out" >&2
    return 2
  fi
  echo "$missing: fetching Python 3.12 with uv, into ~/.local/share/uv ..." >&2
  if ! python=$(adm_fetch_python); then
    echo "uv fetched no Python ($python): $way_out" >&2
    return 2
  fi
  echo "$python"
}

adm_environment() {  # adm_environment ROOT EXTRAS: where pyproject.toml lies; '' or '[test]'
  local root=$1 venv python wanted
  venv=${ADM_VENV:-$root/.venv}
  if [ -e "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -e "$venv/.adm_begun" ] \
      && [ ! -e "$venv/.adm_installed" ]; then  # not made here: it stays as it is
    if [ ! -e "$venv/pyvenv.cfg" ]; then
      echo "$venv is not a virtual environment: name another place in ADM_VENV." >&2
      return 2
    fi
    if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1; then
      echo "$venv has no Python 3.11 or newer with pip: remove it, or name another place in" \
        "ADM_VENV." >&2
      return 2
    fi
    echo "Using the virtual environment that is there, $venv ..."
  elif [ ! -e "$venv/.adm_installed" ]; then
    python=$(adm_find_python) || return
    echo "Making a virtual environment in $venv ..."
    mkdir -p "$venv" || return 1
    # The mark outlives what was broken off, which goes.
    touch "$venv/.adm_begun" || return 1
    find "$venv" -mindepth 1 -maxdepth 1 ! -name .adm_begun -exec rm -rf {} + || return 1
    "$python" -m venv "$venv" || return 1
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
