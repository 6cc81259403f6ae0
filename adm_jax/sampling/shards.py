"""A folder of samples that grows: killed at any moment, it goes on, and ends with the same bytes.

    OUT/job.json                     what is being made
    OUT/shards/BEGIN-END-CRC.bin     images BEGIN .. END - 1, the bytes of uint8 [n H W C]
    OUT/samples.npz                  arr_0 uint8 [N H W C], arr_1 int64 [N]: the published layout

The shards go when the .npz is there. Memory does not grow with N. OUT may be a bucket's: files are
written at once, never appended to or moved, and any number of processes may add to them.
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
import zlib
from typing import Any, Iterable, Iterator, NamedTuple

import numpy as np

from adm_jax.devices import profile
from adm_jax.errors import UsageError
from adm_jax.io import digests, files, json_files, locks, npz
from adm_jax.io.files import written_whole
from adm_jax.io.parts import Part
from adm_jax.stored_configs import differences

# A shard is written when either is reached: small models make no thousands of files, and large ones
# lose no more than a batch when they are killed.
_IMAGES_PER_SHARD, _SECONDS_PER_SHARD = 500, 10
BASE = 'base'
_JOB, _SHARDS, _SAMPLES = 'job.json', 'shards', 'samples.npz'
# What a stored job may lack: it is of before this was written, when the command line's `churn` said
# it already, or of a solver that is not churned, which is the same along steps that add no noise.
_UNTOLD = {'noise_scale'}


def check_folder(folder: pathlib.Path) -> None:
  """Raises UsageError unless a job may start or go on in `folder`; touches nothing.

  It may hold another job under `BASE`, whose images this one enlarges, a trace of that, and what a
  killed process had begun to write.
  """
  files.refresh(folder)
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
    folder: of the job, there or not; a bucket's has room.
    num: how many images.
    shape: (H, W, C) of each.
  """
  if not files.is_local(folder) or (folder / _SAMPLES).exists():
    return
  # Without the temporary files of other processes, which may move at any moment.
  there = sum(_size(path) for path in files.listed(folder / _SHARDS) if path.name[0] != '.')
  needed = 2 * num * math.prod(shape) - there
  root = next(path for path in (folder, *folder.parents) if path.exists())
  free = shutil.disk_usage(root).free
  if needed > free:
    raise UsageError(f'{num:,} images of {" x ".join(map(str, shape))} take {needed / 1e9:,.1f} GB '
                     f'on the way, and {root} has {free / 1e9:,.1f} free: ask for fewer, or give a '
                     'folder elsewhere')


def _size(path: pathlib.Path) -> int:
  try:
    return path.stat().st_size
  except FileNotFoundError:  # joined by another process, and removed
    return 0


class Damaged(UsageError):
  """A shard is not as it was written; it is removed."""


class Shard(NamedTuple):
  """A file of images first .. last - 1; `crc` as in its name, None in those of before."""
  first: int
  last: int
  path: pathlib.Path
  crc: int | None

  @property
  def count(self) -> int:
    return self.last - self.first


class Piece(NamedTuple):
  """Images begin .. end - 1, to be taken of a shard."""
  begin: int
  end: int
  shard: Shard


@dataclasses.dataclass(frozen=True)
class Shards:
  """`num` images of `shape` (H, W, C) in `folder`; made by `open_folder`.

  Attributes:
    shape: None for who only looks.
    labels: i64[num], or None.
    writer: tells the temporary files of processes apart.
  """
  folder: pathlib.Path
  num: int
  shape: tuple[int, int, int] | None
  labels: np.ndarray | None = None
  writer: str = ''
  # Files that were found whole are not asked for their size again.
  _whole: set[str] = dataclasses.field(default_factory=set, repr=False)

  @property
  def samples(self) -> pathlib.Path:
    return self.folder / _SAMPLES

  def joined(self) -> bool:
    """Whether all images are in one file."""
    files.refresh(self.folder)
    return self.samples.exists()

  def missing(self) -> list[tuple[int, int]]:
    """The ranges [begin, end) of images that are not there, rising."""
    if self.joined():
      return []
    ranges, begin = [], 0
    for piece in self._pieces():
      if piece.begin > begin:
        ranges.append((begin, piece.begin))
      begin = piece.end
    if begin < self.num:
      ranges.append((begin, self.num))
    # Whoever joined them meanwhile has removed them.
    return [] if ranges and self.joined() else ranges

  def done(self) -> int:
    """How many images are there."""
    return self.num - sum(end - begin for begin, end in self.missing())

  def add(self, begin: int, images: np.ndarray) -> None:
    """Writes uint8[n H W C], images begin .. begin + n - 1, as a shard."""
    content = np.ascontiguousarray(images)
    crc = zlib.crc32(content)
    path = self.folder / _SHARDS / f'{begin:09d}-{begin + len(images):09d}-{crc:08x}.bin'
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with written_whole(path, writer=self.writer) as part, part.open('wb') as file:
        file.write(content.data)
    except FileNotFoundError:
      if not self.joined():  # by another process, which has made the same, and removed the folder
        raise

  def filling(self) -> 'Filling':
    """What takes batches as they come, and writes them as shards; to be closed."""
    return Filling(self)

  def fill(self, begin: int, batches: Iterable[np.ndarray]) -> None:
    """Writes batches uint8[B H W C], images from `begin` on, as shards of whole batches."""
    with contextlib.closing(self.filling()) as filling:
      for batch in batches:
        filling.put(begin, batch)
        begin += len(batch)

  def finish(self) -> pathlib.Path:
    """Joins the shards, once all images are there, and removes them.

    Raises:
      Damaged: a shard is damaged, and is removed: the same job makes its images again.
      UsageError: images are missing.
    """
    if ranges := self.missing():
      raise UsageError(f'{self.folder}: images {ranges[0][0]} to {ranges[0][1] - 1} are not there')
    if not self.joined():
      arrays = {'arr_0': npz.Pieces((self.num, *self.shape), np.dtype(np.uint8),
                                    map(self._checked, self._pieces()))}
      if self.labels is not None:
        arrays['arr_1'] = self.labels
      try:
        npz.write(self.samples, arrays, self.writer)
      except FileNotFoundError:
        if not self.joined():  # by another process, which has removed the shards
          raise
    files.remove_tree(self.folder / _SHARDS)
    for path in files.listed(self.folder):
      if path.match('.samples.part*'):  # of processes that were killed while they joined
        path.unlink(missing_ok=True)
    return self.samples

  def images(self) -> np.ndarray:
    """uint8[N H W C] of a finished job, mapped from its file."""
    return npz.read(files.local(self.samples), 'arr_0')

  def has(self, begin: int, end: int) -> bool:
    """Whether images begin .. end - 1 are there."""
    return not any(first < end and last > begin for first, last in self.missing())

  def __len__(self) -> int:
    return self.num

  def __getitem__(self, index: np.ndarray) -> np.ndarray:
    """Rows uint8[B H W C] of images that are there, joined or not; `index` i64[B], rising."""
    if not self.joined():
      try:
        return self._rows(np.asarray(index))
      except FileNotFoundError:
        if not self.joined():  # while the shards were read
          raise
    return self.images()[index]

  def damaged(self) -> list[str]:
    """Reads everything there is, and says in a line each what is not as it was written."""
    if self.joined():
      try:
        path = files.local(self.samples)
        for name in npz.names(path):
          for _ in npz.read_pieces(path, name, 64).pieces:
            pass
        return []
      except UsageError as error:
        return [str(error)]
    found = []
    for shard in self._shards():
      crc = zlib.crc32(shard.path.read_bytes())
      if shard.crc is not None and crc != shard.crc:
        found.append(f'{shard.path} has the checksum {crc:08x}: remove it, and the same command '
                     'makes its images again')
    return found

  def _checked(self, piece: Piece) -> np.ndarray:
    """The bytes of the images of a piece."""
    content = piece.shard.path.read_bytes()
    if piece.shard.crc not in (None, zlib.crc32(content)):
      piece.shard.path.unlink(missing_ok=True)
      raise Damaged(f'{piece.shard.path} was damaged, and is removed: its images are made again')
    size = math.prod(self.shape)
    return np.frombuffer(content, np.uint8)[(piece.begin - piece.shard.first) * size:]

  def _rows(self, index: np.ndarray) -> np.ndarray:
    size, rows = math.prod(self.shape), np.empty((len(index), *self.shape), np.uint8)
    found = np.zeros(len(index), bool)
    for piece in self._pieces():
      chosen = (index >= piece.begin) & (index < piece.end)
      if chosen.any():
        low, high = index[chosen].min(), index[chosen].max() + 1
        with piece.shard.path.open('rb') as file:
          file.seek((low - piece.shard.first) * size)
          content = np.frombuffer(file.read((high - low) * size), np.uint8)
        rows[chosen] = content.reshape(-1, *self.shape)[index[chosen] - low]
        found |= chosen
    if not found.all():
      raise FileNotFoundError(f'image {index[~found][0]} of {self.folder} is not there')
    return rows

  def _shards(self) -> list[Shard]:
    """All files that are whole, in the order of their images."""
    found = []
    for path in files.listed(self.folder / _SHARDS):
      match = re.fullmatch(r'(\d+)-(\d+)(?:-([0-9a-f]{8}))?\.bin', path.name)
      if match:
        crc = None if match[3] is None else int(match[3], 16)
        shard = Shard(int(match[1]), int(match[2]), path, crc)
        if self._is_whole(shard):
          found.append(shard)
    return sorted(found, key=lambda shard: (shard.first, shard.last, shard.path.name))

  def _is_whole(self, shard: Shard) -> bool:
    # A name without all of its bytes, which a machine that lost power may leave, does not count. A
    # bucket has no such names.
    name = shard.path.name
    if name not in self._whole and files.is_local(shard.path) and self.shape is not None:
      try:
        if shard.path.stat().st_size != shard.count * math.prod(self.shape):
          return False
      except FileNotFoundError:  # joined, and removed
        return False
    self._whole.add(name)
    return True

  def _pieces(self) -> list[Piece]:
    """Which images to take of which shard, rising, none twice.

    Shards may overlap where a job was gone on with in batches of another size, or two processes
    made the same images at the same time.
    """
    pieces, end = [], 0
    for shard in self._shards():
      if shard.last > end:
        pieces.append(Piece(max(shard.first, end), shard.last, shard))
        end = shard.last
    return pieces


class Filling:
  """Takes batches as they come, and writes neighbors together, as shards of whole batches."""

  def __init__(self, job: Shards):
    self._job, self._kept, self._begin = job, [], 0
    self._since = time.monotonic()

  @property
  def kept(self) -> tuple[int, int] | None:
    """[begin, end) of images that are not written yet."""
    return (self._begin, self._end) if self._kept else None

  @property
  def _end(self) -> int:
    return self._begin + sum(map(len, self._kept))

  def put(self, begin: int, images: np.ndarray) -> None:
    """Takes images begin .. begin + n - 1, uint8[n H W C]."""
    if self._kept and begin != self._end:
      self.close()
    if not self._kept:
      self._begin = begin
    self._kept.append(images)
    late = time.monotonic() - self._since > _SECONDS_PER_SHARD
    if late or self._end - self._begin >= _IMAGES_PER_SHARD:
      self.close()

  def close(self) -> None:
    """Writes what is kept."""
    if self._kept:
      kept, self._kept = self._kept, []
      self._job.add(self._begin, np.concatenate(kept))
    self._since = time.monotonic()


def identity(description: dict[str, Any]) -> str:
  """Tells the images of jobs apart by their descriptions."""
  return digests.short(json.dumps(_without_names(description), sort_keys=True))


def stored(folder: pathlib.Path) -> dict[str, Any]:
  """The description of the job in a folder; {} where there is none."""
  path = folder / _JOB
  found = json_files.read(path) if path.exists() else {}
  return found if isinstance(found, dict) else {}


def in_folder(folder: pathlib.Path) -> Shards:
  """The job in a folder, to be looked at.

  Raises:
    UsageError: there is none.
  """
  num = stored(folder).get('num')
  if not isinstance(num, int):
    raise UsageError(f'{folder} holds no job of adm sample: give its --out')
  return Shards(folder, num, None)


@contextlib.contextmanager
def open_folder(folder: pathlib.Path, description: dict[str, Any], num: int,
                shape: tuple[int, int, int], labels: np.ndarray | None,
                part: Part = Part()) -> Iterator[Shards]:
  """Starts a job, or goes on with one; only one process at a time, or only parts.

  Args:
    folder: new, empty, or of the same job.
    description: JSON values: all that its images depend on, and names of models, which may change
      as long as their fingerprints do not.
    num: how many images.
    shape: of each.
    labels: i[num], or None.
    part: of the job that this process makes.

  Raises:
    UsageError: the folder holds something else, or another process works in it; nothing is touched.
  """
  check_folder(folder)
  folder.mkdir(parents=True, exist_ok=True)
  writer = '' if part.whole else f'{part.index}of{part.count}'
  with contextlib.ExitStack() as stack:
    if files.is_local(folder):
      lock = os.open(folder, os.O_RDONLY)
      stack.callback(os.close, lock)
      locks.take(lock, f'another process works in {folder}: wait for it, or stop it',
                 shared=not part.whole)
    _describe(folder, json.dumps(description, indent=1), writer)
    yield Shards(folder, num, tuple(shape), None if labels is None else labels.astype(np.int64),
                 writer)


def _describe(folder: pathlib.Path, text: str, writer: str) -> None:
  """Writes what the job is, or compares it with what is written."""
  path = folder / _JOB
  if not path.exists():
    with written_whole(path, writer=writer) as part:
      part.write_text(text)
    return
  try:
    stored = _as_now(json.loads(path.read_text()))
    changed = differences(json.dumps(stored), text,
                          (*_names(json.loads(text)), *_UNTOLD.difference(stored)))
  except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
    raise UsageError(f'{path} was not written by this command: give another folder') from error
  if changed:
    more = f'; and {len(changed) - 4} more' if len(changed) > 4 else ''
    raise UsageError(f'{folder} holds another job ({"; ".join(changed[:4])}{more}): give another '
                     'folder')


def _without_names(value: Any) -> Any:
  """JSON values less what models are called by."""
  if not isinstance(value, dict):
    return value
  return {key: _without_names(item) for key, item in value.items() if key != 'name'}


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
