"""The published models: every entry is a network, and downloads end whole or not at all."""

import contextlib
import hashlib
import math

import file_server
import pytest

from adm_jax.cli.main import main
from adm_jax.errors import UsageError
from adm_jax.weights import catalog, openai

CONTENT = bytes(range(256)) * 20_000  # 5 MB


@pytest.mark.parametrize('model', catalog.MODELS.values(), ids=catalog.MODELS)
def test_every_entry_describes_a_network_of_its_size(model):
  """The published flags make exactly the published number of parameters."""
  module, process = openai.create(model.kind, model.flags)
  assert sum(map(math.prod, openai.published_shapes(module).values())) == model.parameters
  if model.classifier:
    guide, guide_process = openai.create('classifier', catalog.find(model.classifier).flags)
    assert guide.image_size == module.image_size and guide_process.schedule == process.schedule


def test_an_unknown_name_gets_near_misses():
  with pytest.raises(UsageError, match='did you mean imagenet256'):
    catalog.find('imagnet256')


def test_models_are_listed_and_shown(capsys, monkeypatch, tmp_path):
  monkeypatch.setenv('ADM_CACHE', str(tmp_path))
  assert main(['models']) == 0
  listing = capsys.readouterr().out
  assert all(name in listing for name in catalog.MODELS) and str(tmp_path) in listing
  assert main(['models', 'imagenet256-uncond']) == 0
  shown = capsys.readouterr().out
  assert '552,814,086' in shown and shown.rstrip().endswith(' arrays')
  assert '| up_5_0/conv_0/kernel ' in shown and '| conv_out/bias ' not in shown
  assert main(['models', 'imagenet256-uncond', '--all-arrays']) == 0
  assert '| conv_out/bias ' in capsys.readouterr().out
  assert main(['models', '--all-arrays']) == 2
  assert main(['models', 'fashion', '--all-arrays']) == 2
  assert main(['models', 'imagenet']) == 2


@contextlib.contextmanager
def bar(total, title):
  yield lambda count: None


@pytest.fixture
def server():
  with file_server.serving(CONTENT) as served:
    yield served


def _model(server, **kwargs):
  return catalog.Model('toy', 'unet', '', server.address, len(CONTENT) // 4, **kwargs)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv('ADM_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


def test_a_file_is_fetched_once(server, cache):
  model = _model(server, sha256=hashlib.sha256(CONTENT).hexdigest(), file_bytes=len(CONTENT))
  path = catalog.fetch(model, bar)
  assert path == cache / 'model.pt' and path.read_bytes() == CONTENT
  assert catalog.fetch(model, bar) == path and server.asked == [None]


@pytest.mark.parametrize('resumes', [True, False])
def test_a_download_that_broke_off_goes_on(server, cache, resumes):
  server.break_at, server.resumes = 3_000_000, resumes
  with pytest.raises(UsageError, match='broke off at|cannot be fetched'):
    catalog.fetch(_model(server), bar)
  assert not (cache / 'model.pt').exists()
  have = (cache / 'model.pt.part').stat().st_size
  assert 0 < have <= 3_000_000
  assert catalog.fetch(_model(server), bar).read_bytes() == CONTENT
  assert server.asked == [None, f'bytes={have}-']


def test_a_part_that_is_whole_is_taken(server, cache):
  cache.mkdir()
  (cache / 'model.pt.part').write_bytes(CONTENT)
  assert catalog.fetch(_model(server), bar).read_bytes() == CONTENT


@pytest.mark.parametrize('kwargs', [{'file_bytes': 17}, {'sha256': '0' * 64}])
def test_a_file_that_is_not_the_published_one_is_refused(server, kwargs):
  with pytest.raises(UsageError, match='is not the published toy'):
    catalog.fetch(_model(server, **kwargs), bar)


@pytest.mark.parametrize('address', ['http://127.0.0.1:9/model.pt', None])
def test_offline_it_says_what_to_fetch_and_where_to_put_it(server, cache, address):
  model = catalog.Model('toy', 'unet', '', address or server.address + 'x', 1)
  with pytest.raises(UsageError) as error:
    catalog.fetch(model, bar)
  assert model.address in str(error.value) and str(cache) in str(error.value)
  assert '\n' not in str(error.value)
