"""The golden files: numbers that the published reference computed, picked up by their prefix.

They lie in the folder that the environment variable ADM_GOLDEN names, by default `golden/` beside
this file. A file dropped in there is tested with the others; a kind with no file is skipped.
"""

import functools
import gzip
import json
import os
import pathlib
import zlib
from typing import Any, Mapping

import numpy as np
import pytest

FOLDER = pathlib.Path(os.environ.get('ADM_GOLDEN') or pathlib.Path(__file__).parent / 'golden')


def parametrize(*prefixes: str) -> pytest.MarkDecorator:
  """Runs a test with `golden`, the path of each .npz file that starts with one of `prefixes`."""
  paths = [path for prefix in prefixes for path in sorted(FOLDER.glob(f'{prefix}*.npz'))]
  cases = [pytest.param(path, id=path.stem) for path in paths]
  kinds = ' or '.join(f'{prefix}*.npz' for prefix in prefixes)
  reason = f'{FOLDER} holds no {kinds}'
  skipped = pytest.param(None, id='none', marks=pytest.mark.skip(reason=reason))
  return pytest.mark.parametrize('golden', cases or [skipped])


def find(name: str) -> pathlib.Path:
  """The path of one named file; skips the test that asks if there is none."""
  if not (FOLDER / name).exists():
    pytest.skip(f'{FOLDER} holds no {name}')
  return FOLDER / name


def published_checkpoints() -> pytest.MarkDecorator:
  """Runs a test with `checkpoint`, each entry of checkpoints.json.gz."""
  path = FOLDER / 'checkpoints.json.gz'
  entries = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else {}
  cases = [pytest.param(entry, id=name) for name, entry in entries.items()]
  reason = f'{FOLDER} holds no {path.name}'
  skipped = pytest.param(None, id='none', marks=pytest.mark.skip(reason=reason))
  return pytest.mark.parametrize('checkpoint', cases or [skipped])


@functools.cache
def load(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(meta, arrays) of an .npz file."""
  with np.load(path) as file:
    arrays = {name: file[name] for name in file.files}
  return json.loads(str(arrays.pop('meta', '{}'))), arrays


def rule_weights(shapes: Mapping[str, tuple[int, ...]], seed: int,
                 gain: float = 1.0) -> dict[str, np.ndarray]:
  """The weights that the reference's networks had: made from name, shape and seed alone.

  Each tensor is standard normal from a generator seeded by (seed, crc32 of the name), then scaled:
  matrices and kernels by gain / sqrt(fan_in), a positional table by 1 / sqrt(its first axis), a
  class table not at all; vectors by 0.1, around 1 if they are a norm's weight; a running variance
  is 1 and more. Layers that start at zero are not zero here, so that every path shows in the
  output.
  """
  def tensor(name, shape):
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    value = generator.standard_normal(shape, dtype=np.float32)
    if name.endswith('running_var'):
      return 1 + 0.1 * np.abs(value)
    if len(shape) == 1:
      return np.float32(name.endswith('.weight')) + np.float32(0.1) * value
    if name.endswith('label_emb.weight'):
      return value
    if name.endswith('positional_embedding'):
      return value / np.float32(np.sqrt(shape[0]))
    return value * np.float32(gain / np.sqrt(np.prod(shape[1:])))
  return {name: tensor(name, tuple(shape)) for name, shape in shapes.items()}


def relative_error(got, want) -> float:
  """The largest error of an image or of a number, relative to that image's root mean square."""
  want = np.asarray(want, np.float64)
  axes = tuple(range(1, want.ndim))
  error = np.abs(np.asarray(got, np.float64) - want).max(axis=axes)
  scale = np.sqrt((want ** 2).mean(axis=axes))
  # Where the reference has zeros alone, ours must too.
  return float(np.where(error == 0, 0, error / np.maximum(scale, 1e-30)).max())
