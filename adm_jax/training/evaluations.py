"""A quick Frechet distance while a run goes on: for its course, not to compare with papers."""

import dataclasses
import pathlib
from typing import Callable

import jax
import numpy as np

from adm_jax.data.sources import ArraySource, Source
from adm_jax.devices import hosts
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, frechet, reference_statistics, report
from adm_jax.io import progress
from adm_jax.networks import Network
from adm_jax.training import grids
from adm_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What is measured.

  Attributes:
    reference: statistics of real images, the file of `adm reference`, made by the same extractor.
    num: samples; few make the distance large, and always by the same amount.
    batch_size: of them at once, over all devices.
    respacing: which steps of the process to take, see `grids.Grid`; a student is told the scale in
      the middle of its range.
    extractor: as `adm evaluate --extractor`; None for Inception.
    features: Inception's weights, where there is no network to fetch them.
  """
  reference: str = ''
  num: int = 1000
  batch_size: int = 64
  respacing: str = '25'
  extractor: str | None = None
  features: str | None = None

  def check(self, network: Network) -> None:
    """Raises UsageError unless the network draws images and the reference is there."""
    if not self.reference:
      raise UsageError('evaluate_every asks for evaluations: name the statistics of real images in '
                       'evaluation.reference, which adm reference makes')
    if self.num < 2:
      raise UsageError(f'evaluation.num={self.num}: give at least 2')
    self._grid().check(network)
    if reference_statistics.read(pathlib.Path(self.reference)) is None:
      raise UsageError(f'{self.reference} holds no statistics: make them with adm reference')

  def _grid(self) -> grids.Grid:
    return grids.Grid(min(self.batch_size, self.num), self.respacing)


def measurer(evaluation: Evaluation, network: Network, source: Source, mesh: jax.sharding.Mesh,
             seed: int) -> Callable[[TrainState], dict[str, float] | None]:
  """A function of the state that gives {name: distance}, in the first process; others get None.

  The name says how many samples, and is FID's only where the extractor is the published one.

  Raises:
    UsageError: the statistics of real images are not of this extractor, or of other features.
  """
  grid = evaluation._grid()
  draw = grids.drawer(grid, network, source, mesh, seed)
  reference = evaluation.reference
  known = reference_statistics.read(pathlib.Path(reference))
  extractor = None

  def load():
    nonlocal extractor
    extractor = (features.by_name(evaluation.extractor) if evaluation.extractor else
                 features.inception(evaluation.features and pathlib.Path(evaluation.features),
                                    progress.bar))
    report.usable(report.ImageSet(reference, None, known), extractor)
    # What this compiles is compiled for the samples to come.
    noise = np.random.default_rng(0).integers(0, 256, (1, *network.image_shape), np.uint8)
    width = features.extract(extractor, ArraySource('noise', noise)).pool.shape[1]
    if width != len(known.pool.mean):
      raise UsageError(f'{reference} has statistics of {len(known.pool.mean)} features, the '
                       f'extractor gives {width} for images of {network.image_shape} (H, W, C): '
                       'make it again of such images (adm reference)')
  hosts.by_first(load)

  def measure(state):
    images = np.concatenate([draw(state, begin)[0]
                             for begin in range(0, evaluation.num, grid.num)])[:evaluation.num]
    if extractor is None:
      return None
    found = features.extract(extractor, ArraySource('samples', images))
    distance = frechet.frechet_distance(frechet.moments(found.pool), known.pool)
    name = 'fid' if extractor.published else 'frechet_distance'
    return {f'{name}_{evaluation.num}': distance}
  return measure
