"""Compiled programs, kept from run to run: a network compiles for minutes, once."""

import os
import pathlib

from adm_jax.io import cache


def use() -> pathlib.Path:
  """Turns JAX's persistent cache on for this process and returns its folder.

  $JAX_COMPILATION_CACHE_DIR, if set, names it; else it lies beside the downloaded weights
  (`io.cache`).
  """
  import jax

  folder = os.environ.get('JAX_COMPILATION_CACHE_DIR') or cache.folder() / 'compiled'
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Also what compiles in less than a second: a command has dozens of these.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  return pathlib.Path(folder)
