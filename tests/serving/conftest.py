"""A server of tiny models, which all tests here ask."""

import queue

import pytest
import tiny_models
from live_server import Visitor, serving

from adm_jax.serving import models
from adm_jax.serving.app import Served


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  """A folder with a model, its classifier and its student."""
  root = tmp_path_factory.mktemp('served')
  tiny_models.unet(root / 'unet', tiny_models.NUM_CLASSES, with_null_label=True)
  tiny_models.classifier(root / 'classifier')
  tiny_models.hearing_student(root / 'student')
  return root


@pytest.fixture(scope='session')
def offered(root):
  return models.offered(str(root / 'unet'), str(root / 'classifier'), str(root / 'student'))


@pytest.fixture(scope='session')
def port(offered):
  """Of a server that has made its first images."""
  lines = queue.Queue()
  with serving(Served(offered, say=lines.put)) as port:
    assert lines.get(timeout=120).startswith('ready')
    yield port


@pytest.fixture
def visitor(port):
  return Visitor(port)


@pytest.fixture
def words(offered):
  """words(guide='none', ...) -> JSON of a run of one image."""
  def of(guide='none', **more):
    course = {'steps': 4} if guide == 'student' else {
        'steps': 20, 'solver': 'dpm++2m', 'spacing': 'karras'}  # which the server has compiled
    return {'model': offered[0].name, 'guide': guide, 'scale': 1.5, 'classes': [3], 'num': 1,
            'seed': 7, **course, **more}
  return of
