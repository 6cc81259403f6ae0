"""PyTorch's `.pt` files, read and written without PyTorch.

Such a file is a zip archive: one member a storage, raw numbers, and an index, `data.pkl`, a pickle
that says how tensors lie in them. Unpickling can run any code, so `tensor_index` reads it; it knows
the few names that an index of tensors needs, and refuses everything else by name.
"""

import contextlib
import json
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple

import ml_dtypes
import numpy as np

from adm_jax.errors import UsageError, of_file, one_line
from adm_jax.io import json_files
from adm_jax.io.files import written_whole
from adm_jax.weights import tensor_index
from adm_jax.weights.lazy_arrays import LazyArray, is_possible, raw_bytes
from adm_jax.weights.tensor_index import Name

_STORAGES = {
    'FloatStorage': np.float32, 'HalfStorage': np.float16, 'DoubleStorage': np.float64,
    'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64, 'IntStorage': np.int32,
    'ShortStorage': np.int16, 'CharStorage': np.int8, 'ByteStorage': np.uint8,
    'BoolStorage': np.bool_}
# How every file of before PyTorch 1.6 begins: a pickled magic number.
_OLD_MAGIC = pickle.dumps(0x1950a86a20f9469cfc6c, protocol=2)


def read_state_dict(path: str | pathlib.Path) -> dict[str, LazyArray]:
  """The tensors of a `.pt` file, {name: array}, each read from the file when it is asked for.

  A state dict inside a larger checkpoint is found under 'state_dict', 'model' or 'ema'.

  Raises:
    UsageError: no such file, not a whole zip archive, the old format, or an index that asks for
      anything but tensors.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UsageError(f'there is no file {path}')
  with open(path, 'rb') as file:
    start = file.read(len(_OLD_MAGIC))
  if start == _OLD_MAGIC:
    raise UsageError(f'{path} has the format of before PyTorch 1.6: where PyTorch is installed, '
                     f'run torch.save(torch.load("{path.name}", map_location="cpu"), "new.pt") and '
                     'give new.pt')
  with _whole(path):
    with of_file(path), zipfile.ZipFile(path) as archive:
      members = _members(archive, path)
      index = next((name for name in members if name.endswith('/data.pkl')), None)
      if index is None:
        raise UsageError(f'{path} is a zip archive without data.pkl: not a PyTorch file')
      load = _storage_loader(path, index.removesuffix('data.pkl'), members)
      with archive.open(index) as member:
        text = member.read(tensor_index.MOST_BYTES + 1)  # one more is refused, unread
      content = tensor_index.read(text, _FUNCTIONS, _NAMES, load)
  return _tensors(content, path)


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[None]:
  """Around what reads an archive: whatever its bytes are, a mistake is one line."""
  try:
    yield
  except UsageError:
    raise
  # A damaged archive may also claim to be encrypted (RuntimeError), or of a later kind of zip.
  except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, OverflowError,
          struct.error) as error:
    reason = one_line(error, 120)
    raise UsageError(f'{path} is not a whole PyTorch file ({reason}): fetch it again') from error


# An entry of the archive beside PyTorch's own, which it passes over.
_NOTES = 'adm_jax.json'


def read_notes(path: pathlib.Path) -> dict[str, str]:
  """The texts beside the tensors of a file that `read_state_dict` has read."""
  with _whole(path), zipfile.ZipFile(path) as archive:
    entry = next((name for name in archive.namelist() if name.endswith(f'/{_NOTES}')), None)
    if entry is None:
      return {}
    with archive.open(entry) as member:
      notes = json_files.parse(member.read(tensor_index.MOST_BYTES), f'{path}: {entry}')
  if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
    raise UsageError(f'{path}: {entry} holds no texts: fetch it again')
  return notes


def write_state_dict(path: str | pathlib.Path, state_dict: Mapping[str, np.ndarray | LazyArray],
                     notes: Mapping[str, str] | None = None) -> None:
  """Writes a file that `torch.load(path, weights_only=True)` reads as an ordinary state dict."""
  with written_whole(path) as part, zipfile.ZipFile(part, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr('archive/data.pkl', _index_of(state_dict))
    archive.writestr('archive/byteorder', 'little')
    if notes:
      archive.writestr(f'archive/{_NOTES}', json.dumps(dict(notes)))
    for i, array in enumerate(state_dict.values()):
      with archive.open(f'archive/data/{i}', 'w', force_zip64=True) as member:
        member.write(raw_bytes(array))
    archive.writestr('archive/version', '3\n')


# ---------------------------------------------------------------------------------------------
# Reading.


def _members(archive: zipfile.ZipFile, path: pathlib.Path) -> dict[str, tuple[int, int]]:
  """{member: (offset of its bytes in the file, their number)}."""
  places, end = {}, path.stat().st_size
  with open(path, 'rb') as file:
    for info in archive.infolist():
      if info.compress_type != zipfile.ZIP_STORED:
        raise UsageError(f'{path} is compressed, which PyTorch\'s files never are')
      # The local header's name and extra field may differ in length from the directory's.
      file.seek(info.header_offset + 26)
      name_length, extra_length = struct.unpack('<HH', file.read(4))
      start = info.header_offset + 30 + name_length + extra_length
      if start + info.file_size > end:
        raise UsageError(f'{path} ends inside {info.filename}: fetch it again')
      places[info.filename] = (start, info.file_size)
  return places


class _Storage(NamedTuple):
  """`count` numbers that start at byte `start` of a file."""
  path: pathlib.Path
  start: int
  dtype: np.dtype
  count: int

  def read(self, offset: int, count: int) -> np.ndarray:
    array = np.fromfile(self.path, self.dtype, count,
                        offset=self.start + offset * self.dtype.itemsize)
    if len(array) < count:
      raise UsageError(f'{self.path} ends inside a tensor: fetch it again')
    return array


def _storage_loader(path: pathlib.Path, prefix: str, members: Mapping) -> Callable:
  def load(kind: str, name: Name, key: str, device: str, count: int) -> _Storage:
    if not (kind == 'storage' and isinstance(name, Name) and name in _NAMES
            and isinstance(key, str) and _are_whole([count])):
      raise UsageError('it refers to something that is no storage of numbers: fetch it again')
    if f'{prefix}data/{key}' not in members:
      raise UsageError(f'it has no storage {key!r}: fetch it again')
    start, size = members[f'{prefix}data/{key}']
    dtype = np.dtype(_STORAGES[name.name])
    if size != count * dtype.itemsize:
      raise UsageError(f'storage {key} has {size} bytes, not the {count * dtype.itemsize} of '
                       f'{count} {dtype} numbers')
    return _Storage(path, start, dtype, count)
  return load


def _rebuild_tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
  del requires_grad, hooks, metadata
  if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)
          and len(size) == len(stride) and _are_whole([offset, *size, *stride])
          and is_possible(size)):
    raise UsageError('it describes a tensor whose shape, strides or offset are no whole numbers of '
                     '0 or more: fetch it again')
  # How many numbers of the storage the tensor spans. It may not show one several times either: a
  # few bytes would become an array of any size.
  span = 0 if 0 in size else 1 + sum((n - 1) * step for n, step in zip(size, stride))
  if offset + span > storage.count or math.prod(size) > storage.count:
    raise UsageError(f'a tensor of shape {size} reaches beyond its storage')
  item = storage.dtype.itemsize
  return LazyArray(size, storage.dtype, lambda: np.lib.stride_tricks.as_strided(
      storage.read(offset, span), size, tuple(step * item for step in stride)))


def _rebuild_parameter(data, requires_grad=False, hooks=None):
  del requires_grad, hooks
  return data


def _are_whole(values: Iterable[Any]) -> bool:
  """Whether these are whole numbers of 0 or more."""
  return all(type(value) is int and value >= 0 for value in values)


_FUNCTIONS = {
    Name('collections', 'OrderedDict'): lambda: {},
    Name('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    Name('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    Name('torch', 'Size'): lambda sides: sides}  # what is given is a tuple already
_NAMES = frozenset(Name('torch', name) for name in _STORAGES)


def _tensors(content: Any, path: pathlib.Path) -> dict[str, LazyArray]:
  for wrapper in ('state_dict', 'model', 'ema'):
    if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
      content = content[wrapper]
  if not isinstance(content, dict) or not content:
    raise UsageError(f'{path} holds no state dict, but a {type(content).__name__}')
  wrong = [name for name, value in content.items()
           if not (isinstance(name, str) and isinstance(value, LazyArray))]
  if wrong:
    raise UsageError(f'{path} holds no state dict: {wrong[0]!r} is no tensor')
  return dict(content)


# ---------------------------------------------------------------------------------------------
# Writing.


def _index_of(state_dict: Mapping[str, np.ndarray | LazyArray]) -> bytes:
  """The pickle, protocol 2, of an ordered dict of tensors; written by hand, since Python's pickler
  would import PyTorch to name its functions."""
  names = {np.dtype(dtype): name for name, dtype in _STORAGES.items()}
  def parts() -> Iterator[bytes]:
    yield pickle.PROTO + b'\x02' + _name('collections', 'OrderedDict') + b')R' + pickle.MARK
    for i, (key, array) in enumerate(state_dict.items()):
      if array.dtype not in names:
        raise UsageError(f'{key} is {array.dtype}, which has no PyTorch storage here')
      strides = [math.prod(array.shape[axis + 1:]) for axis in range(len(array.shape))]
      yield _text(key) + _name('torch._utils', '_rebuild_tensor_v2') + pickle.MARK
      yield (pickle.MARK + _text('storage') + _name('torch', names[array.dtype]) + _text(str(i))
             + _text('cpu') + _integer(array.size) + pickle.TUPLE + pickle.BINPERSID)
      yield _integer(0) + _integers(array.shape) + _integers(strides) + pickle.NEWFALSE
      yield _name('collections', 'OrderedDict') + b')R' + pickle.TUPLE + pickle.REDUCE
    yield pickle.SETITEMS + pickle.STOP
  return b''.join(parts())


def _name(module: str, name: str) -> bytes:
  return pickle.GLOBAL + f'{module}\n{name}\n'.encode()


def _text(text: str) -> bytes:
  encoded = text.encode()
  return pickle.BINUNICODE + struct.pack('<I', len(encoded)) + encoded


def _integer(value: int) -> bytes:
  if value < 2 ** 31:
    return pickle.BININT + struct.pack('<i', value)
  return pickle.LONG1 + b'\x08' + struct.pack('<q', value)


def _integers(values) -> bytes:
  return pickle.MARK + b''.join(_integer(int(value)) for value in values) + pickle.TUPLE
