"""Downloads: what gets its name is the published file, whatever the network and others do."""

import contextlib
import hashlib
import subprocess
import sys

import file_server
import pytest

from adm_jax.errors import UsageError
from adm_jax.io import downloads

CONTENT = bytes(range(256)) * 8_000  # 2 MB
OTHER = bytes(reversed(CONTENT))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@contextlib.contextmanager
def bar(total, title):
  yield lambda count: None


@pytest.fixture
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv('ADM_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def server(cache):
  with file_server.serving(CONTENT) as served:
    yield served


def _fetch(server, sha256=None, least=10, most=10**7):
  return downloads.fetch('toy', server.address, bar, sizes=range(least, most + 1), sha256=sha256,
                         otherwise='do without')


def _refused(match, server, **kwargs):
  with pytest.raises(UsageError, match=match) as error:
    _fetch(server, **kwargs)
  assert '\n' not in str(error.value)


_CLIENT = """
import contextlib, logging, sys
from adm_jax.io import downloads
@contextlib.contextmanager
def bar(total, title):
  yield lambda count: None
path = downloads.fetch('toy', sys.argv[1], bar, sizes=range(10, 10**8), sha256=None, otherwise='-')
sys.exit(downloads.digest(path) != sys.argv[2])
"""


def test_processes_that_fetch_one_file_at_once_all_get_it(server):
  """Each would else write into the other's part; one fetches, and the others wait."""
  server.pause = 0.02
  clients = [subprocess.Popen([sys.executable, '-c', _CLIENT, server.address, SHA256])
             for _ in range(3)]
  assert [client.wait() for client in clients] == [0, 0, 0]
  assert server.asked == [None]


def test_a_process_that_was_killed_leaves_no_lock(server, cache):
  server.pause = 1
  client = subprocess.Popen([sys.executable, '-c', _CLIENT, server.address, SHA256])
  while not (cache / 'model.pt.part').exists():
    assert client.poll() is None
  client.kill()
  client.wait()
  server.pause = 0
  assert _fetch(server, SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize('known', [True, False])
def test_a_file_that_is_not_right_any_more_is_named_and_fetched_again(server, cache, known, caplog):
  """Without a published SHA-256, that of the first use counts."""
  sha256 = SHA256 if known else None
  path = _fetch(server, sha256)
  path.write_bytes(OTHER)
  assert _fetch(server, sha256).read_bytes() == CONTENT
  assert server.asked == [None, None]
  line, = [record.getMessage() for record in caplog.records]
  assert str(path) in line and 'fetched again' in line and '\n' not in line


def test_a_file_that_is_not_right_stays_until_there_is_another(server, cache):
  cache.mkdir()
  (cache / 'model.pt').write_bytes(b'put there by hand')
  server.address = server.address.replace('model.pt', 'absent/model.pt')
  _refused('cannot be fetched', server, sha256=SHA256)
  assert (cache / 'model.pt').read_bytes() == b'put there by hand'


def test_a_file_without_a_known_checksum_has_one_from_its_first_use_on(server, cache):
  cache.mkdir()
  (cache / 'model.pt').write_bytes(OTHER)
  assert _fetch(server).read_bytes() == OTHER and not server.asked
  (cache / 'model.pt').write_bytes(CONTENT[:-1])
  record = cache / '.model.pt.sha256'
  _refused(f'is not the published toy .*{record}', server)
  record.unlink()
  assert _fetch(server).read_bytes() == CONTENT[:-1]


def test_a_file_that_was_only_touched_is_not_fetched_again(server):
  path = _fetch(server)
  path.touch()
  assert _fetch(server) == path and server.asked == [None]


def test_a_file_in_a_folder_that_cannot_be_written_is_used(server, cache, monkeypatch):
  cache.mkdir()
  (cache / 'model.pt').write_bytes(CONTENT)
  def readonly(*args, **kwargs):
    raise PermissionError(13, 'Permission denied')
  monkeypatch.setattr(downloads, 'written_whole', readonly)
  assert _fetch(server, SHA256).read_bytes() == CONTENT


def test_a_cache_that_is_no_folder_is_one_line(server, cache):
  cache.write_text('a file')
  _refused('ADM_CACHE', server)


def _broken_off(server, cache):
  server.break_at = 700_000
  _refused('goes on from there|cannot be fetched', server)
  return (cache / 'model.pt.part').stat().st_size


def test_a_part_of_another_file_is_not_gone_on_with(server, cache):
  """The file was published anew in between: by `If-Range` the server sends all of it."""
  server.etag = True
  have = _broken_off(server, cache)
  server.content = OTHER
  assert _fetch(server).read_bytes() == OTHER
  assert server.asked == [None, f'bytes={have}-']


def test_a_part_of_the_same_file_is_gone_on_with(server, cache):
  server.etag = True
  sent = []
  have = _broken_off(server, cache)
  server.headers = lambda headers: sent.append(headers['Content-Length'])
  assert _fetch(server).read_bytes() == CONTENT and sent == [len(CONTENT) - have]


@pytest.mark.parametrize('said', [
    'bytes 5-2047999/2048000', 'bytes 0-2047999/2048000', 'bytes 700000-2047999/3048000',
    'nonsense', ''])
def test_a_rest_from_elsewhere_is_not_taken(server, cache, said):
  """The part is given up, and all of it is fetched, rather than joined to what does not fit."""
  _broken_off(server, cache)

  def headers(headers):
    if 'Content-Range' in headers:
      headers['Content-Range'] = said
  server.headers = headers
  assert _fetch(server).read_bytes() == CONTENT
  assert server.asked[-1] is None


def test_a_part_that_was_damaged_is_given_up(server, cache):
  _broken_off(server, cache)
  part = cache / 'model.pt.part'
  part.write_bytes(b'x' + part.read_bytes()[1:])
  assert _fetch(server, SHA256).read_bytes() == CONTENT


def test_more_than_was_expected_is_cut_off(server, cache):
  """A body without a length could fill the disk."""
  server.headers = lambda headers: headers.pop('Content-Length')
  _refused('not the published toy .*more than the 1,500,000 bytes', server, most=1_500_000)
  server.headers = lambda headers: None
  _refused('not the published toy .*2,048,000 bytes', server, most=1_500_000)
  assert not list(cache.glob('*part*')) and not list(cache.glob('model*'))


@pytest.mark.parametrize('length', ['many', '-1', '1e6', '9' * 400, '2048000, 2048000'])
def test_a_length_that_is_no_number_is_one_line(server, cache, length):
  server.headers = lambda headers: headers.update({'Content-Length': length})
  _refused('Content-Length', server)


def test_content_of_another_checksum_never_gets_the_name(server, cache):
  _refused('sha256', server, sha256='0' * 64)
  assert not list(cache.glob('model*'))


def test_a_damaged_note_of_a_part_is_no_note(server, cache):
  _broken_off(server, cache)
  (cache / '.model.pt.part.json').write_text('[[[')
  assert _fetch(server).read_bytes() == CONTENT
  assert not list(cache.glob('*part*'))
