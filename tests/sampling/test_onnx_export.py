"""An exported denoiser: ONNX's own runtime makes the same images by the loop of steps.json."""

import json

import numpy as np
import pytest
import tiny_models

from adm_jax.errors import UsageError
from adm_jax.sampling import onnx_export, pipeline
from adm_jax.sampling.guidance import ByClassifier, ClassifierFree, Distilled
from adm_jax.sampling.sampler import image_keys, initial_noise

onnxruntime = pytest.importorskip('onnxruntime', reason='the extra onnx is not installed')
LABELS = np.array([3, 1], np.int32)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('models')
  tiny_models.unet(root / 'unet', tiny_models.NUM_CLASSES, with_null_label=True)
  tiny_models.student(root / 'student')
  tiny_models.classifier(root / 'classifier')
  return root


def run(folder, x, labels, scale):
  """What the module's docstring says, by ONNX alone."""
  session = onnxruntime.InferenceSession(folder / onnx_export.DENOISER)
  given = {'labels': labels, 'scale': np.array(scale, np.float32)}
  described = json.loads((folder / onnx_export.STEPS).read_text())
  assert [each.name for each in session.get_inputs()] == described['inputs']
  for step in described['steps']:
    x0, eps = session.run(['x0', 'eps'], {'x': x, 't': np.array(step['t'], np.int32), **given})
    x = np.sqrt(step['alpha_bar_next']) * x0 + np.sqrt(1 - step['alpha_bar_next']) * eps
    x = x.astype(np.float32)
  return x


@pytest.mark.parametrize('model, guidance, scale', [
    ('student', lambda root: Distilled(1.0), 3.0),
    ('unet', lambda root: ClassifierFree(2.0), 3.0),
    ('unet', lambda root: ByClassifier(root / 'classifier', 2.0), 5.0),
], ids=['student', 'classifier-free', 'classifier'])
def test_onnx_makes_the_same_images_at_another_scale(root, tmp_path, model, guidance, scale):
  adm = pipeline.load(root / model, guidance=(guidance(root),), solver='ddim',
                      steps=4 if model == 'student' else '4')
  onnx_export.save(adm, tmp_path / 'out', batch_size=2)
  keys = image_keys(adm.key(7), np.arange(2))
  x = np.asarray(initial_noise(keys, adm.sampler.shape))
  adm = adm.guided(scale=scale)
  wanted = np.asarray(adm.sampler(adm.params, keys, LABELS))
  found = run(tmp_path / 'out', x, LABELS, scale)
  assert np.abs(found - wanted).max() < 1e-4 * np.sqrt((wanted**2).mean())
  other = run(tmp_path / 'out', x, LABELS, scale / 2)
  assert np.abs(other - wanted).max() > 1e-2


def test_what_is_no_loop_of_ddim_is_refused(root, tmp_path):
  with pytest.raises(UsageError, match='--solver ddim instead of ancestral'):
    onnx_export.save(pipeline.load(root / 'unet', steps='4'), tmp_path / 'out')
  with pytest.raises(UsageError, match='the same at all steps'):
    falling = ClassifierFree(lambda sigma: np.linspace(1.5, 3, len(sigma)))
    onnx_export.save(pipeline.load(root / 'unet', guidance=(falling,), solver='ddim', steps='4'),
                     tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
