"""Bits per dimension of a data set, with the terms of the bound by timestep (`image_nll.py`)."""

import dataclasses
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import jax
import numpy as np

from adm_jax.devices import sharding
from adm_jax.io.meetings import ALONE, Meeting
from adm_jax.io.parts import share
from adm_jax.io.pixels import to_float
from adm_jax.networks import Network
from adm_jax.process import likelihood
from adm_jax.process.diffusion import Diffusion
from adm_jax.sampling.sampler import GuidedNetwork, image_keys, noise_from_keys

_SECTIONS = 64  # of a data set, which processes share; more would only wait


class Batch(NamedTuple):
  """Images of a data set.

  Attributes:
    images: uint8[B H W C].
    labels: i32[B], or None.
    index: i64[B], their places in the data set.
  """
  images: np.ndarray
  labels: np.ndarray | None
  index: np.ndarray


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
            read: Callable[[range], Iterator[Batch]], *, num: int, batch_size: int, seed: int,
            advance: Callable[[int], None] = lambda count: None,
            meeting: Meeting = ALONE) -> Terms | None:
  """The bound of a data set.

  Args:
    network: what makes images, and is no upsampler.
    diffusion: the (respaced) process.
    params: of the network.
    read: the places of images, consecutive -> batches of them, of at most `batch_size`.
    num: how many images there are.
    batch_size: compiled for; rounded up to a multiple of this process's devices.
    seed: image i's noise is a function of (seed, i) alone.
    advance: advance(count) after each batch.
    meeting: of the processes that share the work; numbers do not depend on how many there are.

  Returns:
    The terms; None in processes beside the first.
  """
  mesh = sharding.mesh(devices=jax.local_devices())
  compiled_for = sharding.round_up(batch_size, mesh.size)
  params = jax.device_put({'model': params}, sharding.replicated(mesh))
  make = GuidedNetwork(network, diffusion)

  @jax.jit
  def bound(params, images, labels, keys):
    x0 = to_float(images)
    return likelihood.bits_per_dimension(diffusion, make(params, labels), x0,
                                         noise_from_keys(keys, x0.shape[1:]))

  def terms(batch):
    count = len(batch.images)
    rows = np.minimum(np.arange(compiled_for), count - 1)  # the last batch is padded
    given = (batch.images[rows], None if batch.labels is None else batch.labels[rows],
             image_keys(jax.random.key(seed), batch.index[rows]))
    found = bound(params, *jax.device_put(given, sharding.over_batch(mesh)))
    advance(count)
    return jax.tree.map(lambda term: np.asarray(term, np.float64)[:count], found)

  def section(batches):
    only = range(batches.start * batch_size, min(num, batches.stop * batch_size))
    return _added(_sums(terms(batch)) for batch in read(only))

  batches = -(-num // batch_size)
  count = min(_SECTIONS, batches)
  # Sums are added in one order: within sections, which lie where they lie, and then of sections.
  sections = meeting.map('section', section, [share(batches, i, count) for i in range(count)],
                         everyone=False)
  return _means(_added(sections)) if meeting.part.first else None


def _sums(found: likelihood.Bound) -> dict[str, np.ndarray]:
  """Sums over the images of a batch."""
  return {'count': np.array(len(found.total)), 'squares': np.square(found.total).sum(),
          **{name: getattr(found, name).sum(axis=0)
             for name in ('total', 'prior', 'vb', 'x0_mse', 'eps_mse')}}


def _added(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """The sums of all parts, one after the other; {} of none."""
  total = {}
  for part in parts:
    total = {name: total[name] + part[name] for name in part} if total and part else total or part
  return total


def _means(sums: dict[str, np.ndarray]) -> Terms:
  n = int(sums['count'])
  total = float(sums['total'] / n)
  variance = max(float(sums['squares']) / n - total**2, 0) * n / (n - 1) if n > 1 else None
  error = None if variance is None else float(np.sqrt(variance / n))
  return Terms(n, total, error, float(sums['prior'] / n), sums['vb'] / n, sums['x0_mse'] / n,
               sums['eps_mse'] / n)
