"""`adm nll`: bits per dimension from images in files, in the reference's layout."""

import re

import jax
import numpy as np
import pytest
import tiny
import tiny_models

from adm_jax.cli.main import main
from adm_jax.io.pixels import to_float
from adm_jax.process import likelihood
from adm_jax.process.diffusion import denoiser, respaced
from adm_jax.sampling import sampler as sampling
from adm_jax.weights import folders

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
LABELS = np.arange(7) % tiny_models.NUM_CLASSES


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  tiny_models.unet(tmp_path / 'unet', tiny_models.NUM_CLASSES)
  np.savez(tmp_path / 'images.npz', IMAGES, LABELS)
  return tmp_path


def test_the_terms_are_those_of_the_bound_whatever_the_batches(folder, capsys):
  words = ['nll', '--model', 'unet', '--data', 'images.npz', '--respacing', '4']
  assert main([*words, '--batch-size', '4', '--out', 'a']) == 0
  printed = float(re.search(r'bits per dimension: ([\d.]+)', capsys.readouterr().out)[1])
  assert main([*words, '--batch-size', '7', '--out', 'b']) == 0

  trained = folders.load('unet')
  process = respaced(trained.network.diffusion, '4')
  def network(x, time):
    return trained.network.apply(trained.params, x, time, LABELS.astype(np.int32))
  keys = sampling.image_keys(jax.random.key(0), np.arange(7))
  bound = jax.jit(lambda x0: likelihood.bits_per_dimension(
      process, denoiser(process, network), x0,
      sampling.noise_from_keys(keys, IMAGES.shape[1:])))(to_float(IMAGES))
  np.testing.assert_allclose(printed, bound.total.mean(), rtol=1e-4)
  for name, terms in (('vb', bound.vb), ('mse', bound.eps_mse), ('xstart_mse', bound.x0_mse)):
    for out in 'ab':
      with np.load(f'{out}/{name}_terms.npz') as arrays:
        np.testing.assert_allclose(arrays['arr_0'], np.asarray(terms).mean(axis=0), rtol=1e-4)


def test_the_dtype_is_asked_for_and_said(folder, capsys):
  words = ['nll', '--model', 'unet', '--data', 'images.npz', '--respacing', '4']
  found = {}
  for dtype in (None, 'float32', 'bfloat16'):
    assert main([*words, '--out', str(dtype), *(() if dtype is None else ('--dtype', dtype))]) == 0
    said = capsys.readouterr().out
    assert f', {dtype or "float32"}\n' in said  # what a CPU computes in
    with np.load(f'{dtype}/mse_terms.npz') as arrays:
      found[dtype] = arrays['arr_0']
  np.testing.assert_array_equal(found[None], found['float32'])
  assert (found['bfloat16'] != found['float32']).any()
  np.testing.assert_allclose(found['bfloat16'], found['float32'], rtol=0.05)


@pytest.mark.parametrize('words, message', [
    ('--data images.npz --num 0', 'at least 1'),
    ('--data images.npz --seed 4294967296', 'give 0 to 4294967295'),
    ('--data images.npz --out gs://name/out', 'writes to this machine only'),
    ('--data absent', 'absent'),
    ('--data images.npz --respacing 9999', 'of the 1000 steps'),
    (f'--data {tiny.__file__}', '(8, 8, 1)'), ('--data images.npz --frob', '--frob')])
def test_a_mistake_is_one_line_and_writes_nothing(folder, capsys, words, message):
  assert main(['nll', '--model', 'unet', '--out', 'out', *words.split()]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1
  assert not (folder / 'out').exists()
