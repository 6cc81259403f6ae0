"""The browser's runtime: from a registry, a folder or a tarball, the pinned one or none."""

import contextlib
import hashlib
import io
import tarfile

import file_server
import pytest

from adm_jax.errors import UsageError
from adm_jax.io.progress import no_bar
from adm_jax.serving import onnxruntime_web

CONTENTS = {name: f'content of {name}'.encode() * 1000 for name in onnxruntime_web.FILES}


def tarball(contents):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
    for name, content in {'package.json': b'{}', **contents}.items():
      member = tarfile.TarInfo(f'package/dist/{name}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


PACKED = tarball(CONTENTS)


@pytest.fixture(autouse=True)
def pinned(monkeypatch, tmp_path):
  """As if the published package held `CONTENTS`."""
  monkeypatch.setattr(onnxruntime_web, 'FILES', {
      name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()})
  monkeypatch.setattr(onnxruntime_web, '_TARBALL_BYTES', len(PACKED))
  monkeypatch.setattr(onnxruntime_web, '_TARBALL_SHA256', hashlib.sha256(PACKED).hexdigest())
  monkeypatch.setenv('ADM_CACHE', str(tmp_path / 'cache'))


@contextlib.contextmanager
def registry(monkeypatch, content):
  name = f'onnxruntime-web-{onnxruntime_web.VERSION}.tgz'
  with file_server.serving(content, path=f'/mirror/onnxruntime-web/-/{name}') as served:
    monkeypatch.setenv('npm_config_registry', served.address.split('onnxruntime-web')[0])
    yield served


def refused(match, given=None):
  with pytest.raises(UsageError, match=match) as error:
    onnxruntime_web.files(given, no_bar)
  assert '\n' not in str(error.value) and '--runtime' in str(error.value)


def test_a_registry_is_asked_once(monkeypatch):
  with registry(monkeypatch, PACKED) as served:
    assert onnxruntime_web.files(None, no_bar) == CONTENTS
    assert onnxruntime_web.files(None, no_bar) == CONTENTS
    assert len(served.asked) == 1


def test_what_a_registry_sends_must_be_the_published_package(monkeypatch):
  with registry(monkeypatch, PACKED[:-1] + b'x'):
    refused('is not the published onnxruntime-web .*sha256')
  with registry(monkeypatch, PACKED + b'x'):
    refused('is not the published onnxruntime-web .*bytes')


def test_without_a_network_one_line_says_what_to_do(monkeypatch):
  monkeypatch.setenv('npm_config_registry', 'http://127.0.0.1:1')
  refused('cannot be fetched .*npm_config_registry')
  monkeypatch.setenv('npm_config_registry', 'no address')
  refused('cannot be fetched')


@pytest.mark.parametrize('place', ['', 'dist', 'package/dist'])
def test_a_folder_may_have_it(tmp_path, place):
  folder = tmp_path / place
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in CONTENTS.items():
    (folder / name).write_bytes(content)
  assert onnxruntime_web.files(tmp_path, no_bar) == CONTENTS
  (folder / name).write_bytes(b'of another version')
  refused(f'{name} in .* is not that of onnxruntime-web {onnxruntime_web.VERSION}', tmp_path)
  (folder / name).unlink()
  refused(f'has no {name}', tmp_path)


def test_a_tarball_may_have_it(tmp_path):
  path = tmp_path / 'any.tgz'
  path.write_bytes(PACKED)
  assert onnxruntime_web.files(path, no_bar) == CONTENTS
  path.write_bytes(tarball({}))
  refused('has no ort', path)
  for damaged in (PACKED[:len(PACKED) // 2], b'', b'no tarball', PACKED[:200] + b'x' * 200,
                  PACKED[:100] + bytes(20) + PACKED[120:]):
    path.write_bytes(damaged)
    refused('any.tgz', path)
  refused('No such file', tmp_path / 'absent')
