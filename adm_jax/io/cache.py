"""Where downloads, compiled programs and plans are kept from one command to the next."""

import os
import pathlib


def folder() -> pathlib.Path:
  """$ADM_CACHE, or adm_jax in the user's cache folder."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(os.environ.get('ADM_CACHE') or pathlib.Path(base) / 'adm_jax')
