"""A folder of samples that grows: killed at any moment, it goes on, and ends with the same bytes.

    OUT/job.json               what is being made
    OUT/shards/BEGIN-END.bin   images BEGIN .. END - 1, the bytes of uint8 [n H W C]
    OUT/samples.npz            arr_0 uint8 [N H W C], arr_1 int64 [N]: the published layout

The shards go when the .npz is there. Memory does not grow with N.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import time
from typing import Any, Iterable, Iterator

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io import npz
from adm_jax.io.files import written_whole
from adm_jax.stored_configs import differences

# A shard is written when either is reached: small models make no thousands of files, and large ones
# lose no more than a batch when they are killed.
_IMAGES_A_SHARD, _SECONDS_A_SHARD = 500, 10
BASE = 'base'
# Parts of a description by which jobs do not differ: one model may be called by several paths.
_NAMES = tuple(f'{part}.name' for part in ('model', 'classifier', 'weaker'))
_JOB, _SHARDS, _SAMPLES = 'job.json', 'shards', 'samples.npz'


def check_folder(folder: pathlib.Path) -> None:
  """Raises UsageError unless a job may start or go on in `folder`; touches nothing.

  It may hold another job under `BASE`, whose images this one enlarges, and what a killed process
  had begun to write.
  """
  if folder.exists() and not folder.is_dir():
    raise UsageError(f'{folder} is a file: give a folder')
  foreign = folder.is_dir() and any(
      path.name != BASE and not path.match('.*.part*') for path in folder.iterdir())
  if foreign and not (folder / _JOB).exists():
    raise UsageError(f'{folder} is neither empty nor a job of this command: give another folder')


@dataclasses.dataclass(frozen=True)
class Job:
  """`num` images of `shape` (H, W, C) in `folder`; made by `open_job`.

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

  def done(self) -> int:
    """How many images, from the first on, are there."""
    if self.samples.exists():
      return self.num
    shards = self._shards()
    return shards[-1][1] if shards else 0

  def add(self, begin: int, images: np.ndarray) -> None:
    """Writes uint8[n H W C], images begin .. begin + n - 1, as a shard."""
    path = self.folder / _SHARDS / f'{begin:09d}-{begin + len(images):09d}.bin'
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as part:
      images.tofile(part)

  def finish(self) -> pathlib.Path:
    """Joins the shards, once all images are there, and removes them."""
    if not self.samples.exists():
      shards = self._shards()
      arrays = {'arr_0': npz.Pieces((self.num, *self.shape), np.dtype(np.uint8),
                                    (np.fromfile(path, np.uint8) for _, _, path in shards))}
      if self.labels is not None:
        arrays['arr_1'] = self.labels
      npz.write(self.samples, arrays)
    shutil.rmtree(self.folder / _SHARDS, ignore_errors=True)
    return self.samples

  def images(self) -> np.ndarray:
    """uint8[N H W C] of a finished job, mapped from its file."""
    return npz.read(self.samples, 'arr_0')

  def _shards(self) -> list[tuple[int, int, pathlib.Path]]:
    """(begin, end, path) of the shards that follow each other from the first image on."""
    size = int(np.prod(self.shape))
    found = {}
    for path in (self.folder / _SHARDS).glob('*.bin'):
      match = re.fullmatch(r'(\d+)-(\d+)', path.stem)
      # A name without all of its bytes, which a machine that lost power may leave, does not count.
      if match and path.stat().st_size == (int(match[2]) - int(match[1])) * size:
        found[int(match[1])] = (int(match[1]), int(match[2]), path)
    shards, end = [], 0
    while end in found:
      shards.append(found[end])
      end = found[end][1]
    return shards


def fill(job: Job, batches: Iterable[np.ndarray]) -> None:
  """Writes batches uint8[B H W C], which follow what is done, as shards of whole batches."""
  begin, kept, since = job.done(), [], time.monotonic()
  try:
    for batch in batches:
      kept.append(batch)
      late = time.monotonic() - since > _SECONDS_A_SHARD
      if late or sum(map(len, kept)) >= _IMAGES_A_SHARD:
        job.add(begin, np.concatenate(kept))
        begin, kept, since = begin + sum(map(len, kept)), [], time.monotonic()
  finally:  # also when it is interrupted
    if kept:
      job.add(begin, np.concatenate(kept))


@contextlib.contextmanager
def open_job(folder: pathlib.Path, description: dict[str, Any], num: int,
             shape: tuple[int, int, int], labels: np.ndarray | None) -> Iterator[Job]:
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
    _lock(lock, folder)
    _describe(folder, json.dumps(description, indent=1))
    yield Job(folder, num, tuple(shape), None if labels is None else labels.astype(np.int64))
  finally:
    os.close(lock)


def _lock(descriptor: int, folder: pathlib.Path) -> None:
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise UsageError(f'another process works in {folder}: wait for it, or stop it') from error
  except OSError:
    pass  # a file system without locks


def _describe(folder: pathlib.Path, text: str) -> None:
  """Writes what the job is, or compares it with what is written."""
  path = folder / _JOB
  if not path.exists():
    with written_whole(path) as part:
      part.write_text(text)
    return
  stored = path.read_text()
  try:
    changed = differences(stored, text, _NAMES)
  except (UsageError, AttributeError) as error:
    raise UsageError(f'{path} was not written by this command: give another folder') from error
  if changed:
    more = f'; and {len(changed) - 4} more' if len(changed) > 4 else ''
    raise UsageError(f'{folder} holds another job ({"; ".join(changed[:4])}{more}): give another '
                     'folder')
