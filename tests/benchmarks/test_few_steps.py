"""docs/few_steps.md: what it says was measured; and its benchmark, on small models."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest
import tiny_models

from adm_jax.errors import UsageError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def few_steps():
  spec = importlib.util.spec_from_file_location('few_steps', ROOT / 'benchmarks' / 'few_steps.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('path', sorted((ROOT / 'docs').glob('few_steps_*.json')),
                         ids=lambda path: path.stem)
def test_the_page_has_the_tables_of_what_was_measured(few_steps, path):
  found, page = json.loads(path.read_text()), (ROOT / 'docs' / 'few_steps.md').read_text()
  assert few_steps.table(found['rows']) in page
  if found['fidelity']:
    assert few_steps.table_of_fidelity(found['fidelity']) in page


@pytest.fixture
def words(few_steps, tmp_path, monkeypatch):
  """Of a benchmark of small models in the working directory, which writes into docs/ there."""
  monkeypatch.chdir(tmp_path)
  tiny_models.unet(tmp_path / 'unet', tiny_models.NUM_CLASSES)
  tiny_models.classifier(tmp_path / 'classifier')
  tiny_models.judge(tmp_path / 'judge')
  tiny_models.student(tmp_path / 'guided', None)
  tiny_models.student(tmp_path / 'student', (2,))
  images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
  np.savez('real.npz', images, np.arange(20) % tiny_models.NUM_CLASSES)
  (tmp_path / 'docs').mkdir()
  (tmp_path / 'docs' / 'few_steps.md').write_text(
      'before\n<!-- tiny: -->\nold\n<!-- :tiny -->\nbetween\n'
      '<!-- tiny fidelity: -->\n<!-- :tiny fidelity -->\nafter\n')
  monkeypatch.setattr(few_steps, 'DOCS', tmp_path / 'docs')
  monkeypatch.setattr(few_steps, 'STEPS', (2,))
  monkeypatch.setattr(few_steps, 'SOLVERS', {'teacher, DDIM': few_steps.SOLVERS['teacher, DDIM']})
  monkeypatch.setattr(few_steps, 'plot', lambda rows, path: None)  # matplotlib is no dependency
  return ['few_steps.py', 'tiny', '--teacher', 'unet', '--classifier', 'classifier', '--scale', '2',
          '--scales', '0,2', '--teacher-steps', '3', '--consistency', 'student', '--guided',
          'guided', '--judge', 'judge', '--reference', 'real.npz', '--num', '10', '--seeds', '2',
          '--batch', '4', '--out', 'out']


def test_a_benchmark_measures_each_method_once_and_writes_its_section(few_steps, words, tmp_path,
                                                                      monkeypatch):
  monkeypatch.setattr(sys, 'argv', words)
  few_steps.main()
  page = (tmp_path / 'docs' / 'few_steps.md').read_text()
  found = json.loads((tmp_path / 'docs' / 'few_steps_tiny.json').read_text())
  assert [(row['method'], row['steps']) for row in found['rows']] == [
      ('teacher, ancestral', 3), ('student, consistency', 2), ('teacher, DDIM', 2)]
  for row in found['rows']:
    assert np.isfinite(row['distance']) and row['images_per_second'] > 0
    assert row['distance'] == pytest.approx(np.mean(row['distances']))
  assert few_steps.table(found['rows']) in page and 'old' not in page
  assert few_steps.table_of_fidelity(found['fidelity']) in page
  assert all(line in page for line in ('before\n', '\nbetween\n', '\nafter\n'))
  assert (tmp_path / 'docs' / 'few_steps_tiny_grid.png').exists()
  monkeypatch.setattr(few_steps, 'quality', None)  # nothing is measured again
  monkeypatch.setattr(few_steps, 'speed', None)
  few_steps.main()
  assert json.loads((tmp_path / 'docs' / 'few_steps_tiny.json').read_text()) == found


def test_other_models_images_and_options_are_measured_again(few_steps, words, tmp_path,
                                                            monkeypatch):
  """And a page says of what its measurements are, whatever the command does."""
  asked = []
  monkeypatch.setattr(few_steps, 'quality', lambda cell, *_: asked.append(cell.key) or {
      'distance': 1.0, 'agreement': 1.0, 'precision': 1.0, 'recall': 1.0})
  monkeypatch.setattr(few_steps, 'fidelity', lambda *_: [])
  monkeypatch.setattr(few_steps, 'picture', lambda *_: None)
  tiny_models.classifier(tmp_path / 'other')
  np.savez('other.npz', **np.load('real.npz'))
  def measured(*others):
    asked.clear()
    words.extend(others)
    monkeypatch.setattr(sys, 'argv', words)
    few_steps.main()
    return len(asked)
  assert measured('--parts', 'quality') == 3 and measured() == 0
  assert measured('--classifier', 'other') == 2  # a student has none
  assert measured('--reference', 'other.npz') == 3 and measured('--num', '12') == 3
  assert measured('--parts', 'pages', '--num', '99', '--seeds', '9') == 0
  found = json.loads((tmp_path / 'docs' / 'few_steps_tiny.json').read_text())
  assert (found['num'], found['seeds'], found['scale']) == (12, 2, 2) and 'batch' not in found
  with pytest.raises(UsageError, match='of num 10, 12: make all again'):
    few_steps.settings([{'num': 10, 'scale': 2}, {'num': 12, 'scale': 2}])
