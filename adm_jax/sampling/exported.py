"""Runs what `export` wrote: the program and its weights, and none of the code that made them."""

import math
import pathlib
from typing import Any, Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError, one_line
from adm_jax.io import json_files
from adm_jax.weights import safetensors_files

Array = jax.Array

PROGRAM, WEIGHTS, DESCRIPTION = 'sampler.stablehlo', 'weights.safetensors', 'description.json'


def load(folder: str | pathlib.Path) -> Callable[..., np.ndarray]:
  """Returns a function (seed, index i[B], labels i[B], scale) -> uint8[B H W C].

  Without labels only for models without classes; `scale` is another one of the guidance, where it
  acts, than the exported: a number, or {role: number} where several kinds guide.

  Raises:
    UsageError: there is none, it is damaged, or it is not for this machine's devices.
  """
  folder = pathlib.Path(folder)
  if not (folder / PROGRAM).is_file():
    raise UsageError(f'{folder} holds no {PROGRAM}: give a folder that adm export made')
  num_classes, known = _described(folder / DESCRIPTION)
  try:
    exported = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
  except Exception as error:  # whatever flatbuffers and MLIR raise of bytes that are none of theirs
    raise UsageError(f'{folder / PROGRAM} is damaged ({one_line(error, 120)}): export it again'
                     ) from error
  platform = _platform()
  if platform not in exported.platforms:
    raise UsageError(f'{folder} was exported for {", ".join(exported.platforms)}, these devices '
                     f'are {platform}: export it again with --platforms {platform}')
  weights = {name: jnp.asarray(np.asarray(tensor))
            for name, tensor in safetensors_files.read(folder / WEIGHTS).items()}
  call = jax.jit(exported.call)

  def sample(seed: int, index: Any, labels: Any = None,
             scale: float | dict[str, float] | None = None) -> np.ndarray:
    index = np.asarray(index, np.int32)
    if labels is None and num_classes is not None:
      raise UsageError(f'the model has {num_classes} classes: give a label for each image')
    labels = np.zeros_like(index) if labels is None else np.asarray(labels, np.int32)
    if num_classes is not None and not ((0 <= labels) & (labels < num_classes)).all():
      raise UsageError(f'labels {labels}: the model has classes 0 to {num_classes - 1}')
    if labels.shape != index.shape or not 0 <= seed < 2**32:
      raise UsageError(f'seed {seed}, {index.shape} indices, {labels.shape} labels: give a seed '
                       f'from 0 to {2**32 - 1} and as many labels as indices')
    return np.asarray(call(weights, _scales(known, scale), np.uint32(seed), index, labels))
  return sample


def _described(path: pathlib.Path) -> tuple[int | None, dict[str, Any]]:
  """The number of classes of an exported program, and {role: its scales}."""
  found = json_files.read(path)
  classes, scales = (found.get('num_classes'), found.get('scales')) if isinstance(
      found, dict) else (None, None)
  if (not isinstance(classes, int | None) or not isinstance(scales, dict)
      or not all(_are_scales(entry) for entry in scales.values())):
    raise UsageError(f'{path} does not describe an exported program: export it again')
  return classes, scales


def _are_scales(entry: Any) -> bool:
  if not isinstance(entry, dict) or 'off' not in entry:
    return False
  values, taught = entry.get('values'), entry.get('range', [0, 0])
  return (isinstance(values, list) and isinstance(taught, list) and len(taught) == 2
          and isinstance(entry['off'], int | float | None)
          and all(isinstance(number, int | float) for number in (*values, *taught)))


def _scales(known: dict[str, Any], scale: float | dict[str, float] | None) -> dict[str, Array]:
  """{role: f32[S]}: the exported scales, or others where these act."""
  if scale is not None and not isinstance(scale, dict):
    if len(known) != 1:
      raise UsageError(f'scale={scale}: the program has scales of {", ".join(known) or "nothing"}: '
                       'give {role: number}')
    scale = dict.fromkeys(known, scale)
  unknown = sorted({*(scale or {})} - {*known})
  if unknown:
    raise UsageError(f'scale of {unknown[0]}: the program has scales of '
                     f'{", ".join(known) or "nothing"}')
  result = {}
  for role, entry in known.items():
    values = np.asarray(entry['values'], np.float32)
    if scale and role in scale:
      low, high = entry.get('range', (-math.inf, math.inf))
      if not low <= scale[role] <= high:
        raise UsageError(f'a scale of {scale[role]:g}: the model was distilled for scales from '
                         f'{low:g} to {high:g}')
      acts = True if entry['off'] is None else values != entry['off']
      values = np.where(acts, np.float32(scale[role]), values)
    result[role] = jnp.asarray(values)
  return result


def _platform() -> str:
  """What jax.export calls these devices."""
  backend = jax.default_backend()
  if backend != 'gpu':
    return backend
  return 'rocm' if 'rocm' in jax.devices()[0].client.platform_version.lower() else 'cuda'
