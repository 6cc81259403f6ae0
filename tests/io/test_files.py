"""A file that cannot be written is named, whichever call failed, and nothing of it stays."""

import errno
import os
import pathlib
import resource

import numpy as np
import pytest

from adm_jax.io import files, npz
from adm_jax.weights import folders, safetensors_files

MOST = 1000


@pytest.fixture
def full():
  """Files may not grow beyond `MOST` bytes: a disk that fills up in the middle of a write."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, limits[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _tofile(path):
  with files.written_whole(path) as part:
    np.zeros(MOST).tofile(part)


def _text(path):
  with files.written_whole(path) as part:
    part.write_text('.' * 2 * MOST)


def _folder(path):
  with files.folder_written_whole(path.parent) as part:
    (part / path.name).write_text('.' * 2 * MOST)


@pytest.mark.parametrize('write, named', [
    (_text, 'a/b.npz'), (_tofile, 'a/b.npz'),
    (lambda path: npz.write(path, {'x': np.zeros(MOST)}), 'a/b.npz'),
    (lambda path: safetensors_files.write(path, {'x': np.zeros(MOST)}), 'a/b.npz'),
    (_folder, 'new')], ids=['text', 'tofile', 'npz', 'safetensors', 'folder'])
def test_a_write_that_a_full_disk_cuts_short_names_the_file(tmp_path, full, write, named):
  (tmp_path / 'a').mkdir()
  path = tmp_path / 'a' / 'b.npz' if named != 'new' else tmp_path / 'new' / 'b'
  with pytest.raises(OSError) as error:
    write(path)
  assert error.value.filename == str(tmp_path / named) and error.value.errno
  assert files.reason(error.value).endswith(f': {tmp_path / named}')
  assert list(tmp_path.rglob('*')) == [tmp_path / 'a']


def test_what_fails_below_a_temporary_folder_is_named_where_it_would_have_been(tmp_path):
  with pytest.raises(OSError) as error, files.folder_written_whole(tmp_path / 'new') as part:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part / 'weights'))
  assert error.value.filename == str(tmp_path / 'new' / 'weights')


def test_an_error_of_something_else_is_left_as_it_is(tmp_path):
  for other in (ConnectionResetError(errno.ECONNRESET, 'gone'), FileNotFoundError(2, 'no', 'x')):
    with pytest.raises(type(other)) as error, files.written_whole(tmp_path / 'a'):
      raise other
    assert error.value is other


def test_class_names_on_a_full_disk_are_named_with_their_work_directory(tmp_path, full):
  with pytest.raises(OSError) as error:
    folders.write_class_names(tmp_path, ('x' * 2 * MOST,))
  assert pathlib.Path(error.value.filename).parent == tmp_path
