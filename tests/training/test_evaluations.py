"""Quick evaluations while a run goes on."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tiny

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, frechet, reference_statistics
from adm_jax.training import grids, loop
from adm_jax.training.evaluations import Evaluation, measurer

FUNCTION = 'def f(images):\n  return images.reshape(len(images), -1)[:, ::13] / 255\n'


@pytest.fixture
def reference(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('mine.py').write_text(FUNCTION)
  reference_statistics.measure(pathlib.Path('real.npz'), features.by_name('mine.py:f'),
                     digits('train'), keep=0)
  return 'real.npz'


def _config(reference, **kwargs):
  return tiny.get_config(total_steps=4, save_every=4, evaluate_every=2, evaluation=call(
      Evaluation, reference=reference, num=10, batch_size=4, respacing='3', extractor='mine.py:f',
      **kwargs))


def test_the_distance_of_the_averages_samples_is_written(reference, tmp_path):
  """Of those that a grid of the same number and seed shows."""
  config = _config(reference)
  run = config_lib.build(config)
  state = loop.train(run, stored_configs.to_json(config), tmp_path / 'run')
  lines = [json.loads(line) for line in open(tmp_path / 'run' / 'evaluations.jsonl')]
  assert [line['step'] for line in lines] == [2, 4]
  draw = grids.drawer(grids.Grid(10, '3'), run.task.network, run.data, run.trainer().mesh, run.seed)
  vectors = draw(state)[0].reshape(10, -1)[:, ::13] / 255
  wanted = frechet.frechet_distance(
      frechet.moments(np.float32(vectors)), reference_statistics.read(pathlib.Path(reference)).pool)
  np.testing.assert_allclose(lines[-1]['frechet_distance_10'], wanted, rtol=0.05)
  # A stored config with an evaluation in it can be read again.
  loop.train(run, stored_configs.to_json(config), tmp_path / 'run')


@pytest.mark.parametrize('other, match', [
    (dict(extractor=''), 'real.npz was measured with Inception, not with mine.py:f'),
    (dict(extractor='mine.py:f 0'), 'real.npz was measured with mine.py:f 0, not with mine.py:f'),
    (dict(pool=frechet.Moments(np.zeros(3), np.eye(3))),
     r'3 features, the extractor gives 5 for images of \(8, 8, 1\)')])
def test_statistics_of_another_extractor_are_refused_before_training(reference, other, match):
  path = pathlib.Path(reference)
  reference_statistics.write(
      path, dataclasses.replace(reference_statistics.read(path), **other))
  run = config_lib.build(_config(reference))
  with pytest.raises(UsageError, match=match) as error:
    measurer(run.evaluation, run.task.network, run.data, sharding.mesh(), run.seed)
  assert '\n' not in str(error.value)


def test_mistakes_are_found_before_training(reference):
  with pytest.raises(UsageError, match='no file absent.npz'):
    config_lib.build(_config('absent.npz'))
  np.savez('images.npz', np.zeros((3, 8, 8, 1), np.uint8))
  with pytest.raises(UsageError, match='holds no statistics'):
    config_lib.build(_config('images.npz'))
  with pytest.raises(UsageError, match='evaluation.reference'):
    config_lib.build(tiny.get_config(evaluate_every=2))
