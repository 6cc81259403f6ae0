"""The Inception Score (Salimans et al., 2016): sure of each image, and varied over all of them."""

import numpy as np
from scipy import special

from adm_jax.errors import UsageError


def inception_score(logits: np.ndarray, *, split: int = 5000) -> float:
  """The mean over splits of exp E_x KL(p(y | x) || p(y)), between 1 and the number of classes.

  Args:
    logits: [N K], without the bias, in the order in which the images were drawn.
    split: how many images make p(y); the last split may have fewer, as in the reference.

  Raises:
    UsageError: the logits are not finite.
  """
  if not np.isfinite(logits).all():
    raise UsageError('some logits are not finite: the extractor fails on these images')
  return float(np.mean([_score(logits[i:i + split]) for i in range(0, len(logits), split)]))


def _score(logits: np.ndarray) -> float:
  log_p = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
  log_marginal = special.logsumexp(log_p, axis=0) - np.log(len(log_p))  # [K]
  divergence = (np.exp(log_p) * (log_p - log_marginal)).sum(axis=-1)  # [N]
  return np.exp(divergence.mean())
