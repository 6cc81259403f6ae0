"""PyTorch's files without PyTorch: tensors only, and only whole ones."""

import collections
import os
import pickle
import resource
import time
import zipfile

import ml_dtypes
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.weights import torch_files

STATE = {
    'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4), 'a.bias': np.float32([1.5, -2]),
    'half': np.arange(6, dtype=np.float16).reshape(3, 2), 'count': np.array(7, np.int64),
    'brain': np.arange(4).astype(ml_dtypes.bfloat16), 'mask': np.array([True, False]),
    'empty': np.zeros((0, 3), np.float32)}


def _equal(a, b):
  assert list(a) == list(b)
  for name in a:
    assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
    np.testing.assert_array_equal(a[name], b[name])


def test_there_and_back(tmp_path):
  torch_files.write_state_dict(tmp_path / 'x.pt', STATE)
  _equal(torch_files.read_state_dict(tmp_path / 'x.pt'), STATE)


def test_pytorch_reads_ours_and_we_read_its(tmp_path):
  """Views, shared storages, parameters and transposed tensors included."""
  torch = pytest.importorskip('torch', reason='parity with PyTorch needs PyTorch')
  torch_files.write_state_dict(tmp_path / 'ours.pt', STATE)
  loaded = torch.load(tmp_path / 'ours.pt', weights_only=True)
  assert type(loaded) is collections.OrderedDict
  _equal({name: tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
          if tensor.dtype == torch.bfloat16 else tensor.numpy()
          for name, tensor in loaded.items()}, STATE)

  base = torch.arange(24.0)
  theirs = collections.OrderedDict(
      view=base[4:10], turned=base.reshape(4, 6).T, whole=base,
      parameter=torch.nn.Parameter(base.reshape(2, 12)), scalar=torch.tensor(3, dtype=torch.int64))
  torch.save(theirs, tmp_path / 'theirs.pt')
  _equal(torch_files.read_state_dict(tmp_path / 'theirs.pt'),
         {name: tensor.detach().numpy() for name, tensor in theirs.items()})
  torch.save({'state_dict': theirs, 'step': 3}, tmp_path / 'wrapped.pt')
  assert list(torch_files.read_state_dict(tmp_path / 'wrapped.pt')) == list(theirs)
  torch.save(theirs, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
  with pytest.raises(UsageError, match='before PyTorch 1.6.*torch.save'):
    torch_files.read_state_dict(tmp_path / 'old.pt')


def _archive(path, index: bytes):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', index)
    archive.writestr('archive/version', '3\n')


def _refused(path, match):
  with pytest.raises(UsageError, match=match) as error:
    torch_files.read_state_dict(path)
  assert '\n' not in str(error.value) and str(path) in str(error.value)


class _Malicious:
  def __init__(self, function, argument):
    self._call = function, (argument,)

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize('function, name', [
    (os.system, 'posix.system'), (eval, '__builtin__.eval'), (exec, '__builtin__.exec'),
    (os.mkdir, 'posix.mkdir')])
def test_a_pickle_that_runs_code_is_refused_by_name_and_not_run(tmp_path, function, name):
  victim = tmp_path / 'broken_in'
  argument = str(victim) if function is os.mkdir else f'__import__("os").mkdir({str(victim)!r})'
  _archive(tmp_path / 'x.pt', pickle.dumps({'a': _Malicious(function, argument)}, protocol=2))
  _refused(tmp_path / 'x.pt', name)
  assert not victim.exists()


def test_a_name_below_an_allowed_one_is_refused(tmp_path):
  """Protocol 4 resolves dotted names: an allowed module must not lead elsewhere."""
  index = b'\x80\x04\x8c\x0bcollections\x8c\x09_sys.exit\x93.'
  _archive(tmp_path / 'x.pt', index)
  _refused(tmp_path / 'x.pt', 'collections._sys.exit.*refused')


@pytest.mark.parametrize('keep', [0, 10, 200, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(tmp_path, keep):
  torch_files.write_state_dict(tmp_path / 'x.pt', STATE)
  whole = (tmp_path / 'x.pt').read_bytes()
  (tmp_path / 'x.pt').write_bytes(whole[:keep if isinstance(keep, int) else int(keep * len(whole))])
  _refused(tmp_path / 'x.pt', 'not a whole PyTorch file')


def _index_with(size, stride, offset=0, count=24):
  state = {'a': np.zeros(count, np.float32)}
  index = torch_files._index_of(state)
  plain = (torch_files._integer(0) + torch_files._integers([count]) + torch_files._integers([1]))
  assert plain in index
  return index.replace(plain, torch_files._integer(offset) + torch_files._integers(size)
                       + torch_files._integers(stride))


@pytest.mark.parametrize('size, stride, offset', [
    ([25], [1], 0), ([24], [1], 1), ([2, 3], [24, 1], 0), ([2, 100], [0, 0], 0)])
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, size, stride, offset):
  """It would read memory that is not the file's."""
  _archive(tmp_path / 'x.pt', _index_with(size, stride, offset))
  with zipfile.ZipFile(tmp_path / 'x.pt', 'a') as archive:
    archive.writestr('archive/data/0', b'\0' * 96)
  _refused(tmp_path / 'x.pt', 'beyond its storage')


def test_a_negative_stride_is_refused(tmp_path):
  _archive(tmp_path / 'x.pt', _index_with([24], [-1], 23))
  with zipfile.ZipFile(tmp_path / 'x.pt', 'a') as archive:
    archive.writestr('archive/data/0', b'\0' * 96)
  _refused(tmp_path / 'x.pt', 'no whole numbers')


_NESTED = b'))' + b''.join(b'\x86q\x01h\x01h\x01' for _ in range(60)) + b'\x86'


@pytest.mark.parametrize('index, match', [
    (b'\x80\x02}r\xff\xff\xff\x1f.', 'no state dict'),  # Python's unpickler takes 4 GB for it
    (b'\x80\x02\x8b\xff\xff\xff\x7f.', 'damaged'), (b'\x8d' + b'\xff' * 7 + b'\x7f.', 'damaged'),
    (b'\x80\x02}' + _NESTED + b'K\x01s.', 'neither text nor'),  # 2^60 steps to hash its key
    (b'\x80\x02' + _NESTED + b'Q.', 'no storage|no function|damaged'),
    (b'\x80\x02ccollections\nOrderedDict\n}X\x01\0\0\0aK\x01sb.', 'damaged'),  # sets attributes
    (b'\x80\x02(\x8f.', 'EMPTY_SET'), (b'\x80\x02}', 'damaged|no end'),
    (b'\x80\x02' + b'N' * 1_100_000 + b'.', 'more than 1,000,000 steps'),
    (b'\x80\x02' + b'\0' * (17 << 20), 'more than the 16,777,216 bytes')])
def test_an_index_that_asks_for_memory_or_time_is_refused_at_once(tmp_path, index, match):
  _archive(tmp_path / 'x.pt', index)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start = time.monotonic()
  _refused(tmp_path / 'x.pt', match)
  assert time.monotonic() - start < 5
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB


def test_keys_that_are_no_text_are_refused(tmp_path):
  plain = torch_files._text('a')
  index = torch_files._index_of({'a': np.zeros(24, np.float32)}).replace(
      plain, torch_files._integer(7), 1)
  _archive(tmp_path / 'x.pt', index)
  with zipfile.ZipFile(tmp_path / 'x.pt', 'a') as archive:
    archive.writestr('archive/data/0', b'\0' * 96)
  _refused(tmp_path / 'x.pt', '7 is no tensor')


@pytest.mark.parametrize('content, match', [
    ([1, 2], 'a list'), ({'a': 1}, "'a' is no tensor"), ({}, 'no state dict')])
def test_what_is_no_state_dict_is_refused(tmp_path, content, match):
  _archive(tmp_path / 'x.pt', pickle.dumps(content, protocol=2))
  _refused(tmp_path / 'x.pt', match)


def test_other_files_are_refused(tmp_path):
  _refused(tmp_path / 'absent.pt', 'no file')
  with zipfile.ZipFile(tmp_path / 'x.pt', 'w') as archive:
    archive.writestr('readme', 'hello')
  _refused(tmp_path / 'x.pt', 'without data.pkl')
  with zipfile.ZipFile(tmp_path / 'y.pt', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', b'.' * 1000)
  _refused(tmp_path / 'y.pt', 'compressed')
