"""Files that are whole or absent."""

import atexit
import contextlib
import errno
import functools
import os
import pathlib
import shutil
import tempfile
from typing import Iterator

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def folder(path: str | pathlib.Path) -> pathlib.Path:
  """A folder by its path, made absolute, or by an address in a bucket, 'gs://NAME/...'."""
  if '://' not in str(path):
    return pathlib.Path(path).absolute()
  from etils import epath  # Orbax's own paths, which work like pathlib's
  return epath.Path(path)


def is_local(path: pathlib.Path) -> bool:
  return isinstance(path, pathlib.Path) and '://' not in os.fspath(path)


def refresh(path: pathlib.Path) -> None:
  """Lets the next look at a bucket's folder see what other hosts have written since the last."""
  if not is_local(path):
    from etils.epath import backend
    # Which keeps listings for ever; TensorFlow's, which epath takes where it is there, keeps none.
    with contextlib.suppress(ImportError):
      backend.fsspec_backend.fs(path).invalidate_cache()


@functools.lru_cache(maxsize=16)
def _copy(path: pathlib.Path, stamp: tuple) -> pathlib.Path:
  del stamp  # tells versions of an object apart
  folder = tempfile.mkdtemp(prefix='adm_jax_')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  copy = pathlib.Path(folder, path.name)
  with path.open('rb') as source, open(copy, 'wb') as target:
    shutil.copyfileobj(source, target, 1 << 22)
  return copy


def local(path: pathlib.Path) -> pathlib.Path:
  """A file that does not change any more, on this machine: of a bucket's a copy, made once."""
  if is_local(path):
    return path
  refresh(path.parent)
  status = path.stat()
  return _copy(path, (status.length, status.mtime))


def listed(folder: pathlib.Path) -> list[pathlib.Path]:
  """What is in a folder now, whoever has written it; nothing where there is no folder."""
  refresh(folder)
  try:
    return list(folder.iterdir())
  except FileNotFoundError:
    return []


def remove_tree(path: pathlib.Path) -> None:
  """Removes a folder and what is in it; whatever is gone meanwhile is no mistake."""
  if is_local(path):
    shutil.rmtree(path, ignore_errors=True)
    return
  for each in listed(path):
    if each.is_dir():
      remove_tree(each)
    else:
      each.unlink(missing_ok=True)


@contextlib.contextmanager
def written_whole(path: str | pathlib.Path, sync: bool = True,
                  writer: str = '') -> Iterator[pathlib.Path]:
  """Gives a temporary path beside `path`; moves it there if the block succeeds.

  Whoever finds `path` finds all of it, whenever the program was killed, and with `sync` also if the
  machine lost power. An object of a bucket is written in place: it appears when it is complete.
  Where several processes may write the same file at once, `writer` tells their temporary paths
  apart.

  Raises:
    OSError: it cannot be written; its `filename` is `path`, or another file that failed.
  """
  path = pathlib.Path(path) if isinstance(path, str) else path
  if not is_local(path):
    yield path
    return
  temporary = path.with_name(f'.{path.stem}.part{writer}{path.suffix}')
  try:
    with naming(path, temporary):
      yield temporary
      if sync:
        _sync(temporary)
      os.replace(temporary, path)
      if sync:
        _sync(path.parent)
  except FileNotFoundError as error:
    if not path.parent.is_dir():
      raise FileNotFoundError(errno.ENOENT, 'there is no such folder', str(path.parent)) from error
    raise
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: pathlib.Path, instead_of: pathlib.Path | None = None) -> Iterator[None]:
  """Around what writes `path`: errors of the disk name it, which those of writes do not.

  What is named in `instead_of`, or below it, is named in `path`: the user has never heard of it.
  """
  try:
    yield
  except OSError as error:
    number, said = error.errno, error.strerror
    if number is None and 'written' in str(error):  # NumPy's, which says how much was
      number, said = errno.ENOSPC, f'the disk is full, or the file too large ({error})'
    if error.filename is None and number in _OF_DISKS:
      named = path
    elif instead_of is not None and _below(error.filename, instead_of):
      named = path / pathlib.Path(error.filename).relative_to(instead_of)
    else:
      raise
    raise OSError(number, said, os.fspath(named)) from error


def _below(name: object, path: pathlib.Path) -> bool:
  return isinstance(name, (str, os.PathLike)) and pathlib.Path(name).is_relative_to(path)


def reason(error: OSError) -> str:
  """'No space left on device: FILE'."""
  said = error.strerror or ' '.join(str(error).split())
  return said if error.filename is None else f'{said}: {os.fspath(error.filename)}'


@contextlib.contextmanager
def folder_written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """The same for a folder, which must not exist."""
  part = path.with_name(f'.{path.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  try:
    with naming(path, part):
      part.mkdir(parents=True)
      yield part
      part.rename(path)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError:  # a file system that cannot
    pass
  finally:
    os.close(descriptor)
