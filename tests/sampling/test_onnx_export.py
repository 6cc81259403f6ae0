"""An exported denoiser: ONNX's own runtime makes the same images by the loop of steps.json."""

import json

import jax
import numpy as np
import pytest
import tiny_models

from adm_jax.errors import UsageError
from adm_jax.sampling import onnx_export, pipeline
from adm_jax.sampling.guidance import ByClassifier, ClassifierFree, Distilled
from adm_jax.sampling.sampler import image_keys, initial_noise

onnxruntime = pytest.importorskip('onnxruntime', reason='the extra onnx is not installed')
pytestmark = pytest.mark.skipif(not jax.__version__.startswith('0.10.'),
                                reason='jax2onnx 0.12 and 0.17 do not know later versions of JAX')
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
  given = {'labels': labels} | ({} if scale is None else {'scale': np.array(scale, np.float32)})
  described = json.loads((folder / onnx_export.STEPS).read_text())
  assert [each.name for each in session.get_inputs()] == described['inputs']
  for step in described['steps']:
    x0, eps = session.run(['x0', 'eps'], {'x': x, 't': np.array(step['t'], np.int32), **given})
    x = np.sqrt(step['alpha_bar_next']) * x0 + np.sqrt(1 - step['alpha_bar_next']) * eps
    x = x.astype(np.float32)
  return x


def both(adm, folder, scale):
  """The images of a run, f32[2 H W C], by ONNX and by ourselves."""
  keys = image_keys(adm.key(7), np.arange(2))
  x = np.asarray(initial_noise(keys, adm.sampler.shape))
  return run(folder, x, LABELS, scale), np.asarray(adm.sampler(adm.params, keys, LABELS))


def test_onnx_makes_a_students_images_at_any_scale(root, tmp_path):
  adm = pipeline.load(root / 'student', guidance=(Distilled(1.0),))
  onnx_export.save(adm, tmp_path / 'out', batch_size=2)
  found, wanted = both(adm.guided(scale=3.0), tmp_path / 'out', 3.0)
  rms = np.sqrt((wanted**2).mean())
  assert np.abs(found - wanted).max() < 1e-4 * rms
  other, _ = both(adm, tmp_path / 'out', 1.0)
  assert np.abs(other - wanted).max() > 1e-2 * rms


def test_onnx_makes_an_unguided_models_images(root, tmp_path):
  adm = pipeline.load(root / 'unet', solver='ddim', steps='4')
  onnx_export.save(adm, tmp_path / 'out', batch_size=2)
  found, wanted = both(adm, tmp_path / 'out', None)
  assert np.abs(found - wanted).max() < 1e-4 * np.sqrt((wanted**2).mean())


def test_what_cannot_be_written_is_refused_in_one_line(root, tmp_path, monkeypatch):
  with pytest.raises(UsageError, match='--solver ddim instead of ancestral'):
    onnx_export.save(pipeline.load(root / 'unet', steps='4'), tmp_path / 'out')
  with pytest.raises(UsageError, match='the same at all steps'):
    falling = ClassifierFree(lambda sigma: np.linspace(1.5, 3, len(sigma)))
    onnx_export.save(pipeline.load(root / 'unet', guidance=(falling,), solver='ddim', steps='4'),
                     tmp_path / 'out')
  with pytest.raises(UsageError, match='jax2onnx cannot write this run .*: export a student'):
    guidance = (ByClassifier(root / 'classifier', 2.0),)
    onnx_export.save(pipeline.load(root / 'unet', guidance=guidance, solver='ddim', steps='4'),
                     tmp_path / 'out')
  monkeypatch.setattr(onnx_export, '_MOST_BYTES', 1000)
  with pytest.raises(UsageError, match='the weights have 0.00 GB, and a file of ONNX holds'):
    onnx_export.save(pipeline.load(root / 'student'), tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
