"""An exported sampler: StableHLO that makes the same images without the model's code."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny_models

from adm_jax.errors import UsageError
from adm_jax.sampling import export, exported, pipeline
from adm_jax.sampling.guidance import ByClassifier

pytest.importorskip('flatbuffers', reason='jax.export writes its files with flatbuffers')
LABELS = np.arange(3)


@pytest.fixture(scope='module')
def adm(tmp_path_factory):
  root = tmp_path_factory.mktemp('models')
  return pipeline.load(tiny_models.unet(root / 'unet', tiny_models.NUM_CLASSES),
                       guidance=(ByClassifier(tiny_models.classifier(root / 'classifier')),),
                       steps='3')


@pytest.fixture(scope='module')
def folder(adm, tmp_path_factory):
  out = tmp_path_factory.mktemp('exported') / 'out'
  export.save(adm, out, ('cpu', 'tpu', 'cuda'))
  return out


def test_another_process_makes_the_same_images_without_the_models_code(adm, folder, tmp_path):
  script = '''
import sys
import numpy as np
from adm_jax.sampling import exported
sample = exported.load(sys.argv[1])
np.save(sys.argv[2], sample(7, [0, 1, 2], [0, 1, 2]))
np.save(sys.argv[3], sample(7, [2], [2]))
assert not {'flax', 'adm_jax.models', 'adm_jax.sampling.sampler'} & set(sys.modules)
'''
  subprocess.run([sys.executable, '-c', script, folder, tmp_path / 'a.npy', tmp_path / 'b.npy'],
                 check=True, timeout=300)
  images = np.load(tmp_path / 'a.npy')
  wanted = adm(LABELS, seed=7)
  assert (np.abs(images.astype(int) - wanted) <= 1).all() and images.std() > 1
  assert (np.abs(np.load(tmp_path / 'b.npy').astype(int) - images[2:]) <= 1).all()


def test_the_program_holds_no_weights(folder):
  weights = (folder / 'weights.safetensors').stat().st_size
  assert (folder / 'sampler.stablehlo').stat().st_size < min(10**6, weights / 2)
  assert json.loads((folder / 'description.json').read_text())['evaluations'] == 3


def test_mistakes(adm, folder, tmp_path):
  with pytest.raises(UsageError, match='exists'):
    export.save(adm, folder, ('cpu',))
  with pytest.raises(UsageError, match='platform abacus is unknown'):
    export.save(adm, tmp_path / 'a', ('abacus',))
  with pytest.raises(UsageError, match='holds no sampler'):
    exported.load(tmp_path)
  sample = exported.load(folder)
  for words, message in [((0, [0, 1], [99, -7]), '0 to 4'), ((0, [0]), 'give a label'),
                         ((-1, [0], [0]), 'seed -1'), ((0, [0, 1], [0]), 'as many labels')]:
    with pytest.raises(UsageError, match=message):
      sample(*words)
  shutil.copytree(folder, tmp_path / 'cut')
  (tmp_path / 'cut' / 'sampler.stablehlo').write_bytes(b'no program')
  with pytest.raises(UsageError, match='is damaged'):
    exported.load(tmp_path / 'cut')
  export.save(adm, tmp_path / 'tpu', ('tpu',))
  with pytest.raises(UsageError, match='was exported for tpu, these devices are cpu'):
    exported.load(tmp_path / 'tpu')


@pytest.mark.parametrize('name, content', [
    ('description.json', '[]'), ('description.json', '{"num_classes": "x", "scales": {}}'),
    ('description.json', '{"num_classes": null, "scales": {"a": 1}}'),
    ('description.json', '{"num_classes": null, "scales": {"a": {"values": ["x"], "off": 0}}}'),
    ('description.json', '[' * 100_000), ('sampler.stablehlo', ''),
    ('sampler.stablehlo', '\0' * 99), ('sampler.stablehlo', None)])
def test_a_damaged_file_of_an_exported_program_is_named(folder, tmp_path, name, content):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  if content is None:  # bytes in its middle
    whole = bytearray((copy / name).read_bytes())
    whole[len(whole) // 2:] = b'\xff' * (len(whole) // 2)
    (copy / name).write_bytes(whole)
  else:
    (copy / name).write_text(content)
  with pytest.raises(UsageError, match=name) as error:
    exported.load(copy)
  assert '\n' not in str(error.value)
