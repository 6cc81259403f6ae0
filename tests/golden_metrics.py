"""The features that the golden metrics (`golden/metrics_*.json`) were computed on, made by rule."""

import json

import golden_files
import numpy as np
import pytest


def parametrize() -> pytest.MarkDecorator:
  """Runs a test with `metrics`, (the golden numbers, reference, samples, logits) of each file."""
  cases = [pytest.param(path.name, id=path.stem)
           for path in sorted(golden_files.FOLDER.glob('metrics_*.json'))]
  skipped = pytest.param(None, id='none', marks=pytest.mark.skip(reason='no golden metrics'))
  return pytest.mark.parametrize('metrics', cases or [skipped], indirect=True)


def inputs(name: str) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray]:
  """(golden numbers, reference f32[N D], samples f32[M D], logits f32[M 1008])."""
  golden = json.loads(golden_files.find(name).read_text())
  seed, dim, low = golden['seed'], golden['dim'], golden['low']
  reference = _features(seed, golden['n_ref'], dim, 0.3, low)
  samples = (_features(seed, golden['n_sample'], dim, 0.33, low) * 1.05).astype(np.float32)
  weights = np.random.default_rng(seed + 1).standard_normal((dim, 1008)).astype(np.float32)
  return golden, reference, samples, samples @ (weights * np.float32(3.2 / np.sqrt(dim)))


def _features(seed: int, n: int, dim: int, shift: float, low: int) -> np.ndarray:
  """Like features: not negative, and near a space of few dimensions."""
  mixing = np.random.default_rng(seed).standard_normal((low, dim)) / np.sqrt(low)
  latent = np.random.default_rng(seed * 7 + n).standard_normal((n, low))
  return np.abs(latent @ mixing + shift).astype(np.float32)
