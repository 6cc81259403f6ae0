"""Readers of weights, arrays and configs."""

import io
import json
import math
import pathlib
import struct
import tempfile
import zipfile
from typing import Callable

import numpy as np

_STATE = {'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
          'a.bias': np.float32([1.5, -2]), 'half': np.arange(6, dtype=np.float16).reshape(3, 2),
          'count': np.array(7, np.int64), 'empty': np.zeros((0, 3), np.float32)}
_IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


def _written(write: Callable[[pathlib.Path], None], suffix: str) -> bytes:
  """What `write` writes."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'good{suffix}'
    write(path)
    return path.read_bytes()


# ---------------------------------------------------------------------------------------------
# State dicts.


def _torch() -> bytes:
  from adm_jax.weights import torch_files
  return _written(lambda path: torch_files.write_state_dict(path, _STATE), '.pt')


def _torch_index() -> bytes:
  with zipfile.ZipFile(io.BytesIO(_torch())) as archive:
    return archive.read('archive/data.pkl')


def _safetensors() -> bytes:
  from adm_jax.weights import safetensors_files
  return _written(lambda path: safetensors_files.write(path, _STATE), '.safetensors')


def _safetensors_header() -> bytes:
  whole = _safetensors()
  return whole[8:8 + struct.unpack('<Q', whole[:8])[0]]


def _read_state_dict(path: pathlib.Path) -> None:
  from adm_jax.weights import state_dicts
  for array in state_dicts.read(path).values():
    np.ascontiguousarray(array)


def _read_torch_index(path: pathlib.Path) -> None:
  """In an archive whose other members are as they should be."""
  with zipfile.ZipFile(io.BytesIO(_torch())) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}
  whole = path.with_suffix('.pt')
  with zipfile.ZipFile(whole, 'w') as archive:
    for name, content in (members | {'archive/data.pkl': path.read_bytes()}).items():
      archive.writestr(name, content)
  _read_state_dict(whole)


def _read_safetensors_header(path: pathlib.Path) -> None:
  """Before numbers that are as they should be."""
  whole, header = _safetensors(), path.read_bytes()
  path.with_suffix('.safetensors').write_bytes(
      struct.pack('<Q', len(header)) + header + whole[8 + struct.unpack('<Q', whole[:8])[0]:])
  _read_state_dict(path.with_suffix('.safetensors'))


def _shapes() -> bytes:
  """The names and shapes of a small published network."""
  from adm_jax.weights import openai
  module, _ = openai.create(
      'unet', '--image_size 32 --num_channels 32 --num_res_blocks 1 --channel_mult 1,1')
  return json.dumps(openai.published_shapes(module)).encode()


def _read_network(path: pathlib.Path) -> None:
  """As a file with these names and shapes, whose flags are inferred; its numbers are zeros."""
  from adm_jax.weights import pretrained
  try:
    header, end = {}, 0
    for name, shape in json.loads(path.read_bytes()).items():
      begin, end = end, end + 4 * math.prod(shape)
      header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [begin, end]}
    text = json.dumps(header).encode()
  except (ValueError, TypeError, AttributeError, RecursionError):
    text, end = path.read_bytes(), 0
  whole = path.with_suffix('.safetensors')
  with open(whole, 'wb') as file:
    file.write(struct.pack('<Q', len(text)) + text)
    if type(end) is int and 0 <= end < 1 << 28:
      file.truncate(file.tell() + end)  # of a file with a hole, which takes no room
  try:
    pretrained.read(whole)
  finally:
    whole.unlink()


# ---------------------------------------------------------------------------------------------
# Arrays.


def _npz(save: Callable) -> Callable[[], bytes]:
  return lambda: _written(lambda path: save(path, _IMAGES, np.arange(5)), '.npz')


def _npy() -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, _IMAGES)
  return buffer.getvalue()


def _read_npz(path: pathlib.Path) -> None:
  from adm_jax.data.npz_file import NpzFile
  from adm_jax.io import npz
  source = NpzFile(path)
  for batch in source.stream(2):
    batch.sum()
  np.asarray(source[len(source) - 1]['image']).sum()
  rows = npz.rows(path, 'arr_0')
  rows[np.arange(min(3, len(rows)))].sum()
  source.fingerprint()


def _read_npy(path: pathlib.Path) -> None:
  """In an archive with the right checksum."""
  with zipfile.ZipFile(path.with_suffix('.npz'), 'w') as archive:
    archive.writestr('arr_0.npy', path.read_bytes())
  _read_npz(path.with_suffix('.npz'))


def _statistics() -> bytes:
  return _written(lambda path: np.savez(
      path, mu=np.zeros(4), sigma=np.eye(4), mu_s=np.zeros(3), sigma_s=np.eye(3), arr_0=_IMAGES,
      count=np.asarray(5, np.int64), extractor=np.asarray('inception 0')), '.npz')


def _read_statistics(path: pathlib.Path) -> None:
  from adm_jax.evaluation import reference_statistics
  found = reference_statistics.read(path)
  if found is not None:
    np.asarray(found.pool.covariance).sum()


# ---------------------------------------------------------------------------------------------
# Stored configs, and what else is JSON.


def _config(network_only: bool) -> bytes:
  import tiny

  from adm_jax import stored_configs
  from adm_jax.config import ConfigDict
  whole = tiny.get_config()
  config = whole if not network_only else ConfigDict({'network': whole.task.network},
                                                     convert_dict=False)
  return stored_configs.to_json(config).encode()


def _read_run(path: pathlib.Path) -> None:
  """As a plan builds a run."""
  from adm_jax import stored_configs
  from adm_jax.errors import of_file
  from adm_jax.io import json_files
  with of_file(path):
    stored_configs.build(stored_configs.from_json(json_files.read_text(path)))


def _read_network_config(path: pathlib.Path) -> None:
  """As the config of a folder of weights."""
  from adm_jax.weights import folders
  folders.described(path)


def _job() -> bytes:
  return json.dumps(_DESCRIPTION).encode()


_DESCRIPTION = {'version': 2, 'model': {'name': 'a', 'fingerprint': '0'}, 'seed': 0, 'num': 4,
                'guidance': {'classifier': {'scale': 2.0, 'between': [0, 1]}}, 'start': None}


def _read_job(path: pathlib.Path) -> None:
  from adm_jax.sampling import shards
  folder = path.with_suffix('')
  folder.mkdir()
  (folder / 'job.json').write_bytes(path.read_bytes())
  with shards.open_folder(folder, _DESCRIPTION, 4, (2, 2, 3), None):
    pass


def _classes() -> bytes:
  return json.dumps(['tench', 'goldfish', 'great white shark']).encode()


def _read_classes(path: pathlib.Path) -> None:
  from adm_jax.weights import folders
  for name in folders.read_class_names(path) or ():
    name.lower()


READERS = {
    'torch': (_torch, '.pt', _read_state_dict),
    'torch index': (_torch_index, '.pkl', _read_torch_index),
    'safetensors': (_safetensors, '.safetensors', _read_state_dict),
    'safetensors header': (_safetensors_header, '.json', _read_safetensors_header),
    'published network': (_shapes, '.json', _read_network),
    'npz': (_npz(np.savez), '.npz', _read_npz),
    'compressed npz': (_npz(np.savez_compressed), '.npz', _read_npz),
    'npy': (_npy, '.npy', _read_npy),
    'reference statistics': (_statistics, '.npz', _read_statistics),
    'config of a run': (lambda: _config(False), '.json', _read_run),
    'config of a network': (lambda: _config(True), '.json', _read_network_config),
    'job': (_job, '.json', _read_job),
    'class names': (_classes, '.json', _read_classes),
}
