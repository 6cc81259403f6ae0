"""A folder of samples that grows: killed at any moment, it goes on, and ends with the same bytes.

    OUT/job.json               what is being made
    OUT/shards/BEGIN-END.bin   images BEGIN .. END - 1, the bytes of uint8 [n H W C]
    OUT/samples.npz            arr_0 uint8 [N H W C], arr_1 int64 [N]: the published layout

The shards go when the .npz is there. Memory does not grow with N.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import time
from typing import Any, Iterable, Iterator

import numpy as np

from adm_jax.devices import profile
from adm_jax.errors import UsageError
from adm_jax.io import locks, npz
from adm_jax.io.files import written_whole
from adm_jax.stored_configs import differences

# A shard is written when either is reached: small models make no thousands of files, and large ones
# lose no more than a batch when they are killed.
_IMAGES_PER_SHARD, _SECONDS_PER_SHARD = 500, 10
BASE = 'base'
_JOB, _SHARDS, _SAMPLES = 'job.json', 'shards', 'samples.npz'


def check_folder(folder: pathlib.Path) -> None:
  """Raises UsageError unless a job may start or go on in `folder`; touches nothing.

  It may hold another job under `BASE`, whose images this one enlarges, a trace of that, and what a
  killed process had begun to write.
  """
  if folder.exists() and not folder.is_dir():
    raise UsageError(f'{folder} is a file: give a folder')
  foreign = folder.is_dir() and any(
      path.name not in (BASE, profile.FOLDER) and not path.match('.*.part*')
      for path in folder.iterdir())
  if foreign and not (folder / _JOB).exists():
    raise UsageError(f'{folder} is neither empty nor a job of this command: give another folder')


def check_space(folder: pathlib.Path, num: int, shape: tuple[int, int, int]) -> None:
  """Raises UsageError unless the shards of a job and the file they are joined in have room.

  Args:
    folder: of the job, there or not.
    num: how many images.
    shape: (H, W, C) of each.
  """
  if (folder / _SAMPLES).exists():
    return
  there = sum(path.stat().st_size for path in (folder / _SHARDS).glob('*.bin'))
  needed = 2 * num * math.prod(shape) - there
  root = next(path for path in (folder, *folder.parents) if path.exists())
  free = shutil.disk_usage(root).free
  if needed > free:
    raise UsageError(f'{num:,} images of {" x ".join(map(str, shape))} take {needed / 1e9:,.1f} GB '
                     f'on the way, and {root} has {free / 1e9:,.1f} free: ask for fewer, or give a '
                     'folder elsewhere')


@dataclasses.dataclass(frozen=True)
class Shards:
  """`num` images of `shape` (H, W, C) in `folder`; made by `open_folder`.

  Attributes:
    labels: i64[num], or None.
  """
  folder: pathlib.Path
  num: int
  shape: tuple[int, int, int]
  labels: np.ndarray | None

  @property
  def samples(self) -> pathlib.Path:
    return self.folder / _SAMPLES

  def missing(self) -> list[tuple[int, int]]:
    """The ranges [begin, end) of images that are not there, rising."""
    if self.samples.exists():
      return []
    ranges, begin = [], 0
    for first, last, _ in self._parts():
      if first > begin:
        ranges.append((begin, first))
      begin = last
    return ranges + ([(begin, self.num)] if begin < self.num else [])

  def done(self) -> int:
    """How many images are there."""
    return self.num - sum(end - begin for begin, end in self.missing())

  def add(self, begin: int, images: np.ndarray) -> None:
    """Writes uint8[n H W C], images begin .. begin + n - 1, as a shard."""
    path = self.folder / _SHARDS / f'{begin:09d}-{begin + len(images):09d}.bin'
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as part:
      images.tofile(part)

  def fill(self, begin: int, batches: Iterable[np.ndarray]) -> None:
    """Writes batches uint8[B H W C], images from `begin` on, as shards of whole batches."""
    kept, since = [], time.monotonic()
    try:
      for batch in batches:
        kept.append(batch)
        late = time.monotonic() - since > _SECONDS_PER_SHARD
        if late or sum(map(len, kept)) >= _IMAGES_PER_SHARD:
          self.add(begin, np.concatenate(kept))
          begin, kept, since = begin + sum(map(len, kept)), [], time.monotonic()
    finally:  # also when it is interrupted
      if kept:
        self.add(begin, np.concatenate(kept))

  def finish(self) -> pathlib.Path:
    """Joins the shards, once all images are there, and removes them."""
    if not self.samples.exists():
      arrays = {'arr_0': npz.Pieces((self.num, *self.shape), np.dtype(np.uint8),
                                    (self._read(*part) for part in self._parts()))}
      if self.labels is not None:
        arrays['arr_1'] = self.labels
      npz.write(self.samples, arrays)
    shutil.rmtree(self.folder / _SHARDS, ignore_errors=True)
    return self.samples

  def images(self) -> np.ndarray:
    """uint8[N H W C] of a finished job, mapped from its file."""
    return npz.read(self.samples, 'arr_0')

  def _read(self, first: int, last: int, path: pathlib.Path) -> np.ndarray:
    """The bytes of images first .. last - 1, the last ones of a shard."""
    size = math.prod(self.shape)
    return np.fromfile(path, np.uint8)[-(last - first) * size:]

  def _parts(self) -> list[tuple[int, int, pathlib.Path]]:
    """(begin, end, path): which images to take of which shard, rising, none twice.

    Shards may overlap where a job was gone on with in batches of another size.
    """
    found = []
    for path in (self.folder / _SHARDS).glob('*.bin'):
      match = re.fullmatch(r'(\d+)-(\d+)', path.stem)
      # A name without all of its bytes, which a machine that lost power may leave, does not count.
      if match and path.stat().st_size == (int(match[2]) - int(match[1])) * math.prod(self.shape):
        found.append((int(match[1]), int(match[2]), path))
    parts, end = [], 0
    for first, last, path in sorted(found):
      if last > end:
        parts.append((max(first, end), last, path))
        end = last
    return parts


@contextlib.contextmanager
def open_folder(folder: pathlib.Path, description: dict[str, Any], num: int,
             shape: tuple[int, int, int], labels: np.ndarray | None) -> Iterator[Shards]:
  """Starts a job, or goes on with one; only one process at a time.

  Args:
    folder: new, empty, or of the same job.
    description: JSON values: all that its images depend on, and names of models, which may change
      as long as their fingerprints do not.
    num: how many images.
    shape: of each.
    labels: i[num], or None.

  Raises:
    UsageError: the folder holds something else, or another process works in it; nothing is touched.
  """
  check_folder(folder)
  folder.mkdir(parents=True, exist_ok=True)
  lock = os.open(folder, os.O_RDONLY)
  try:
    locks.take(lock, f'another process works in {folder}: wait for it, or stop it')
    _describe(folder, json.dumps(description, indent=1))
    yield Shards(folder, num, tuple(shape), None if labels is None else labels.astype(np.int64))
  finally:
    os.close(lock)


def _describe(folder: pathlib.Path, text: str) -> None:
  """Writes what the job is, or compares it with what is written."""
  path = folder / _JOB
  if not path.exists():
    with written_whole(path) as part:
      part.write_text(text)
    return
  try:
    stored = json.dumps(_as_now(json.loads(path.read_text())))
    changed = differences(stored, text, _names(json.loads(text)))
  except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
    raise UsageError(f'{path} was not written by this command: give another folder') from error
  if changed:
    more = f'; and {len(changed) - 4} more' if len(changed) > 4 else ''
    raise UsageError(f'{folder} holds another job ({"; ".join(changed[:4])}{more}): give another '
                     'folder')


def _names(description: dict[str, Any], prefix: str = '') -> tuple[str, ...]:
  """The keys by which jobs do not differ: one model may be called by several paths."""
  found = []
  for key, value in description.items():
    if isinstance(value, dict):
      found += _names(value, f'{prefix}{key}.')
    elif key == 'name':
      found.append(f'{prefix}{key}')
  return tuple(found)


def _as_now(old: dict[str, Any]) -> dict[str, Any]:
  """A description of before version 2, in today's words; others as they are."""
  if 'version' in old:
    return old
  old, guidance = dict(old), {}
  between = old.pop('interval')
  scale, weaker_scale, cfg_scale = (old.pop(name) for name in ('scale', 'weaker_scale',
                                                               'cfg_scale'))
  classifier, weaker, share = (old.pop(name) for name in ('classifier', 'weaker',
                                                          'threshold_share'))
  normalize, every, clip = (old.pop(name) for name in ('normalize', 'classifier_every',
                                                       'clip_guided'))
  if cfg_scale is not None:
    guidance['classifier_free'] = {'scale': cfg_scale, 'between': between}
  if weaker is not None:
    guidance['weaker'] = {'weaker': weaker, 'scale': weaker_scale, 'between': between}
  if classifier is not None:
    guidance['classifier'] = {'classifier': classifier, 'scale': scale, 'between': between,
                              'normalize': normalize, 'every': every, 'clip': clip}
  if share is not None:
    guidance['threshold'] = {'share': share}
  if old.get('solver') != 'ddim':
    old.pop('eta', None)
  reconstruct, interpolate = old.pop('reconstruct', None), old.pop('interpolate', None)
  images = old.pop('images', None)
  start = {'images': images} if images is not None or interpolate is not None else None
  if reconstruct:
    start['reconstruct'] = True
  if interpolate is not None:
    start['interpolate'] = interpolate
  return {'version': 2, **old, 'guidance': guidance, 'order': list(guidance), 'start': start}


VERSION = 2  # of descriptions
