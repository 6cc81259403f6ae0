"""A bucket in memory, as strict as Google's: nothing is appended to or moved, an object is there
once it is closed, there are no folders but in names, and what was listed is remembered."""

import contextlib
import io

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from adm_jax.io import files


class _Written(io.BytesIO):
  """An object on its way: it cannot be sought in, and appears when it is closed."""

  def __init__(self, put):
    super().__init__()
    self._put = put

  def seekable(self):
    return False

  def seek(self, *arguments):
    raise OSError('Seek only available in read mode')

  def close(self):
    if not self.closed:
      self._put(self.getvalue())
    super().close()


class Bucket(MemoryFileSystem):
  """Google's, in memory."""
  protocol = ('gcs', 'gs')
  store, pseudo_dirs = {}, ['']
  cachable = False

  def __init__(self, *arguments, **options):
    super().__init__(*arguments, **options)
    self.listed = {}

  @classmethod
  def _strip_protocol(cls, path):
    return MemoryFileSystem._strip_protocol(path.removeprefix('gs://'))

  def ls(self, path, detail=True, **options):
    path = self._strip_protocol(path)
    if path not in self.listed:
      self.listed[path] = super().ls(path, detail=True, **options)
    found = self.listed[path]
    return found if detail else [each['name'] for each in found]

  def invalidate_cache(self, path=None):
    self.listed.clear()

  def _open(self, path, mode='rb', **options):
    if 'a' in mode or '+' in mode:
      raise NotImplementedError(f'mode {mode}: objects are written at once')
    if 'w' not in mode:
      return super()._open(path, mode, **options)
    def put(content):
      self.listed.pop(self._parent(path), None)
      MemoryFileSystem._open(self, path, mode, data=content)
    return _Written(put)

  def makedirs(self, path, exist_ok=False):
    pass

  def mkdir(self, path, create_parents=True, **options):
    pass

  def mv(self, *arguments, **options):
    raise NotImplementedError('nothing is moved in a bucket')


@contextlib.contextmanager
def in_force(monkeypatch, name='run'):
  """Gives 'gs://name/NAME', as a path, in an empty bucket."""
  from etils.epath import backend
  Bucket.store.clear()
  filesystem = Bucket()
  monkeypatch.setattr(backend, 'tf_backend', backend.fsspec_backend)
  monkeypatch.setattr(fsspec, 'filesystem', lambda name, **_: filesystem)
  backend._FileSystemSpecBackend._get_filesystem.cache_clear()
  yield files.folder(f'gs://name/{name}')
  backend._FileSystemSpecBackend._get_filesystem.cache_clear()
