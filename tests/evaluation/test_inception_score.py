"""The Inception Score is the reference's, and has its limits."""

import golden_metrics
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.evaluation.inception_score import inception_score


@golden_metrics.parametrize()
def test_it_is_golden(metrics):
  golden, _, _, logits = metrics
  assert inception_score(logits) == pytest.approx(golden['inception_score'], rel=1e-5)
  assert inception_score(logits, split=golden['split']) == pytest.approx(
      golden['inception_score_quarter_splits'], rel=1e-5)


def test_it_lies_between_one_and_the_number_of_classes():
  assert inception_score(np.zeros((10, 7))) == pytest.approx(1)
  sure = 1000 * np.eye(7)
  assert inception_score(sure) == pytest.approx(7)
  # Of splits that see one class each, nothing is varied.
  assert inception_score(np.repeat(sure, 5, axis=0), split=5) == pytest.approx(1)


def test_the_last_split_counts_as_much_as_others():
  logits = np.random.default_rng(0).normal(size=(10, 4))
  parts = [inception_score(logits[:4]), inception_score(logits[4:8]), inception_score(logits[8:])]
  assert inception_score(logits, split=4) == pytest.approx(np.mean(parts))


def test_nan_is_refused():
  with pytest.raises(UsageError, match='not finite'):
    inception_score(np.full((2, 3), np.nan))
