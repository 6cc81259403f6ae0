"""Bits per dimension of a data set, with the terms of the bound by timestep (`image_nll.py`)."""

import dataclasses
from typing import Any, Callable, Iterator

import jax
import numpy as np

from adm_jax.devices import sharding
from adm_jax.io.pixels import to_float
from adm_jax.networks import Network
from adm_jax.process import likelihood
from adm_jax.process.diffusion import Diffusion
from adm_jax.sampling.sampler import GuidedNetwork, image_keys, noise_from_keys


@dataclasses.dataclass(frozen=True)
class Terms:
  """Means over images; columns go with t = S - 1 down to 0, as in the reference's files.

  Attributes:
    count: how many images.
    total: bits per dimension.
    error: its standard error; None of one image.
    prior: bits per dimension.
    vb: f64[S], bits per dimension.
    x0_mse: f64[S], squared error of the predicted x_0.
    eps_mse: f64[S], squared error of the predicted noise.
  """
  count: int
  total: float
  error: float | None
  prior: float
  vb: np.ndarray
  x0_mse: np.ndarray
  eps_mse: np.ndarray


def measure(network: Network, diffusion: Diffusion, params: Any,
            batches: Iterator[tuple[np.ndarray, np.ndarray | None]], *, batch_size: int, seed: int,
            advance: Callable[[int], None] = lambda count: None) -> Terms:
  """The bound of a stream of images.

  Args:
    network: what makes images, and is no upsampler.
    diffusion: the (respaced) process.
    params: of the network.
    batches: (uint8[B H W C], i32[B] or None), B at most `batch_size`.
    batch_size: compiled for; rounded up to a multiple of the devices.
    seed: image i's noise is a function of (seed, i) alone.
    advance: advance(count) after each batch.
  """
  mesh = sharding.mesh()
  batch_size = sharding.round_up(batch_size, mesh.size)
  params = jax.device_put({'model': params}, sharding.replicated(mesh))
  make = GuidedNetwork(network, diffusion)

  @jax.jit
  def bound(params, images, labels, keys):
    x0 = to_float(images)
    return likelihood.bits_per_dimension(diffusion, make(params, labels), x0,
                                         noise_from_keys(keys, x0.shape[1:]))

  sums, squares, begin = None, 0.0, 0
  for images, labels in batches:
    count = len(images)
    index = np.minimum(np.arange(batch_size), count - 1)  # the last batch is padded
    given = (images[index], None if labels is None else labels[index],
             image_keys(jax.random.key(seed), begin + index))
    found = bound(params, *jax.device_put(given, sharding.over_batch(mesh)))
    found = jax.tree.map(lambda term: np.asarray(term, np.float64)[:count], found)
    part = jax.tree.map(lambda term: term.sum(axis=0), found)
    sums = part if sums is None else jax.tree.map(np.add, sums, part)
    squares += np.square(found.total).sum()
    begin += count
    advance(count)
  means = jax.tree.map(lambda term: term / begin, sums)
  variance = max(squares / begin - means.total**2, 0) * begin / (begin - 1) if begin > 1 else None
  error = None if variance is None else float(np.sqrt(variance / begin))
  return Terms(begin, float(means.total), error, float(means.prior), means.vb, means.x0_mse,
               means.eps_mse)
