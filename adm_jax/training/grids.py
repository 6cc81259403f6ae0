"""Pictures of what a run's average draws, from the same noise each time."""

import dataclasses
import pathlib

import jax
import numpy as np

from adm_jax import pictures, sharding, solvers
from adm_jax.data.sources import Source
from adm_jax.diffusion import respaced
from adm_jax.errors import UsageError
from adm_jax.images import shrink, to_float, to_uint8
from adm_jax.models import Classifier
from adm_jax.sampling import NetworkDenoiser, Sampler, image_keys
from adm_jax.training.state import TrainState
from adm_jax.training.tasks import Task

# A stream of the run's seed, beside those of the loop.
_GRID = 2


@dataclasses.dataclass(frozen=True)
class Grid:
  """What a picture shows.

  Attributes:
    num: images, rounded up to a multiple of the devices; classes take turns.
    respacing: which steps of the process to take.
  """
  num: int = 16
  respacing: str = '25'

  def __post_init__(self):
    if self.num < 1:
      raise UsageError(f'grid.num={self.num}: give at least 1')

  def check(self, task: Task) -> None:
    """Raises UsageError unless the task's network can draw it."""
    if isinstance(task.model, Classifier):
      raise UsageError('a classifier draws no images: set sample_every to 0')
    respaced(task.diffusion, self.respacing)


def draw(grid: Grid, task: Task, source: Source, state: TrainState, mesh: jax.sharding.Mesh,
         seed: int) -> tuple[np.ndarray, np.ndarray | None]:
  """Samples by the slowest average, or the parameters where there is none, on all devices.

  Args:
    grid: how many, in how many steps.
    task: not a classifier's.
    source: where an upsampler's small images come from.
    state: the run's.
    mesh: of its devices.
    seed: of the noise.

  Returns:
    (uint8[N H W C], i32[N] or None).
  """
  params = state.ema[max(state.ema, key=float)] if state.ema else state.params
  process = respaced(task.diffusion, grid.respacing)
  sampler = Sampler(NetworkDenoiser(task.model, process), solvers.ancestral(),
                    solvers.descend(process.schedule), task.image_shape, mesh)
  num = -(-grid.num // mesh.size) * mesh.size
  index = np.arange(num, dtype=np.int32)
  labels = None if task.model.num_classes is None else index % len(source.class_names)
  low_res = None
  if task.low_res_shape is not None:
    images = np.stack([source[int(i) % len(source)]['image'] for i in index])
    low_res = np.asarray(shrink(to_float(images), *task.low_res_shape[:2]))
  key = jax.random.fold_in(jax.random.key(seed), _GRID)
  x = sampler({'model': params}, image_keys(key, index), labels, low_res=low_res)
  whole = jax.jit(to_uint8, out_shardings=sharding.replicated(mesh))(x)
  return np.asarray(whole)[:grid.num], None if labels is None else labels[:grid.num]


def write(workdir: pathlib.Path, step: int, images: np.ndarray, labels: np.ndarray | None,
          names: tuple[str, ...]) -> None:
  """Writes `workdir/samples/STEP.png`."""
  folder = workdir / 'samples'
  folder.mkdir(parents=True, exist_ok=True)
  pictures.write_grid(folder / f'{step:07d}.png', images, labels,
                      [(name,) for name in names] or None)
