"""State dicts in files, {name: array}, by the file's ending: `.pt` or `.safetensors`."""

import pathlib
from typing import Mapping

import numpy as np

from adm_jax.compat import torch_files
from adm_jax.errors import UsageError
from adm_jax.files import written_whole


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file.

  Raises:
    UsageError: no such file, an unknown ending, or a file that is not whole.
  """
  if path.suffix in ('.pt', '.pth'):
    return torch_files.read_state_dict(path)
  _check_ending(path)
  if not path.is_file():
    raise UsageError(f'there is no file {path}')
  import safetensors.numpy
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise UsageError(f'{path} is not a whole safetensors file ({error}): fetch it again') from error


def write(path: pathlib.Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes a file that PyTorch, or the safetensors library, reads."""
  if path.suffix in ('.pt', '.pth'):
    return torch_files.write_state_dict(path, state_dict)
  _check_ending(path)
  import safetensors.numpy
  with written_whole(path) as part:
    safetensors.numpy.save_file(dict(state_dict), part)


def _check_ending(path: pathlib.Path) -> None:
  if path.suffix != '.safetensors':
    raise UsageError(f'{path} ends in {path.suffix or "nothing"}: give a .pt or .safetensors file')
