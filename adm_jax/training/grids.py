"""Pictures of what a run's average draws, from the same noise each time."""

import dataclasses
import pathlib
from typing import Callable

import jax
import numpy as np

from adm_jax.data.loading import Reader
from adm_jax.data.sources import Source
from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.io import pictures
from adm_jax.io.pixels import shrink, to_float, to_uint8
from adm_jax.networks import Network
from adm_jax.process.diffusion import respaced
from adm_jax.sampling import solvers, students
from adm_jax.sampling.guidance import distilled, scales_of
from adm_jax.sampling.sampler import GuidedNetwork, Sampler, image_keys

# A stream of the run's seed, beside those of the loop.
_GRID = 2


@dataclasses.dataclass(frozen=True)
class Grid:
  """What a picture shows.

  Attributes:
    num: images, rounded up to a multiple of the devices; classes take turns, but that an upsampler
      is told those of the images that it enlarges.
    respacing: which steps of the process to take; a student of few takes those it was taught.
    scale: of guidance, that a student is told; None: halfway between the least and the most that it
      was taught.
  """
  num: int = 16
  respacing: str = '25'
  scale: float | None = None

  def __post_init__(self):
    if self.num < 1:
      raise UsageError(f'grid.num={self.num}: give at least 1')

  def check(self, network: Network) -> None:
    """Raises UsageError unless the network can draw it."""
    if network.classifies:
      raise UsageError('a classifier draws no images: set sample_every to 0')
    respaced(network.diffusion, self.respacing)
    if network.scales is not None:
      distilled.check(network, 'the student', [self.scale_of(network)])
    elif self.scale is not None:
      raise UsageError(f'grid.scale={self.scale}: the network is no student, which alone is told '
                       'one: set it to None')

  def scale_of(self, student: Network) -> float:
    """The scale that a student is told."""
    return sum(student.scales) / 2 if self.scale is None else self.scale


def drawer(grid: Grid, network: Network, source: Source, mesh: jax.sharding.Mesh,
           seed: int) -> Callable[..., tuple[np.ndarray, np.ndarray | None]]:
  """A function (state, first=0) -> (uint8[N H W C], i32[N] or None), compiled at its first call.

  It samples images first .. first + N - 1 of the run by the slowest average, or by the parameters
  where there is none, on all devices.

  Args:
    grid: how many, in how many steps.
    network: what makes the images.
    source: where an upsampler's small images, and their classes, come from.
    mesh: of the run's devices.
    seed: of the noise.
  """
  solver = solvers.by_name(students.solver(network, None))
  course = students.course(network, grid.respacing if network.steps is None else None, None, solver)
  process = respaced(network.diffusion, course.respacing)
  denoiser = GuidedNetwork(network, process)
  sampler = Sampler(denoiser, solver, course.steps(process.schedule), network.image_shape, mesh)
  scales = {} if network.scales is None else {
      distilled.ROLE: scales_of(grid.scale_of(network), process.schedule, off=np.nan)}
  dtypes = denoiser.read_dtypes({'model': network.abstract_params(), 'scales': scales})['model']

  @jax.jit
  def narrowed(params):
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), params, dtypes)
  num = sharding.round_up(grid.num, mesh.size)
  key = jax.random.fold_in(jax.random.key(seed), _GRID)
  reader = Reader(source, max_unreadable=1.0)
  whole = jax.jit(to_uint8, out_shardings=sharding.replicated(mesh))

  def draw(state, first=0):
    params = state.ema[max(state.ema, key=float)] if state.ema else state.params
    index = np.arange(first, first + num, dtype=np.int32)
    labels = None if network.num_classes is None else index % len(source.class_names)
    low_res = None
    if network.low_res_shape is not None:
      examples = [reader.at_or_after(int(i) % len(source), None) for i in index]
      images = np.stack([example['image'] for example in examples])
      low_res = np.asarray(shrink(to_float(images), *network.low_res_shape[:2]))
      if labels is not None:  # of what is enlarged
        labels = np.array([example['label'] for example in examples], np.int32)
    x = sampler({'model': narrowed(params), 'scales': scales}, image_keys(key, index), labels,
                low_res=low_res)
    return np.asarray(whole(x))[:grid.num], None if labels is None else labels[:grid.num]
  return draw


def write(workdir: pathlib.Path, step: int, images: np.ndarray, labels: np.ndarray | None,
          names: tuple[str, ...]) -> None:
  """Writes `workdir/samples/STEP.png`."""
  folder = workdir / 'samples'
  folder.mkdir(parents=True, exist_ok=True)
  pictures.write_grid(folder / f'{step:07d}.png', images, labels,
                      [(name,) for name in names] or None)
