"""What a guidance value is: a map from denoiser to denoiser that is not yet bound to a run.

A new kind of guidance is one file with one value. The pipeline folds a tuple of them in order, the
first next to the model.
"""

import dataclasses
from typing import Any, Callable, NamedTuple, Protocol

import jax

from adm_jax.networks import Network
from adm_jax.process.diffusion import Denoiser
from adm_jax.process.schedules import Schedule
from adm_jax.sampling.guidance.scales import Scales, scale_table
from adm_jax.sampling.solvers import Solver
from adm_jax.sampling.steps import Step
from adm_jax.weights import catalog
from adm_jax.weights.folders import Trained

Array = jax.Array
# Labels i32[B] or None -> the model, guided so far, as a denoiser of images with these labels.
Conditional = Callable[[Array | None], Denoiser]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """What guidance may know of the run that it is for, before a program exists.

  Attributes:
    name: what the model was called by; None for weights in memory.
    model: the network that makes images, with its weights.
    published: what the catalog says of it; None for other models.
    schedule: the process that is sampled, respaced.
    steps: where the solver goes.
    solver: the method.
  """
  name: str | None
  model: Trained
  published: catalog.Model | None
  schedule: Schedule
  steps: Step
  solver: Solver


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
  """What guidance has inside of a program.

  Attributes:
    params: the weights of its own network, or None.
    scales: its scale, or None.
    low_res: what an upsampler enlarges, f32[B h w C], or None.
    schedule: the process that is sampled.
  """
  params: Any
  scales: Scales | None
  low_res: Array | None
  schedule: Schedule


class Bound(NamedTuple):
  """Guidance that is bound to a run.

  Attributes:
    role: 'classifier', 'weaker', ...: the name of its weights and of its scale among the
      program's arguments.
    guide: (conditional, context) -> conditional, guided.
    fixed: settings that are part of the program, and its network's name: guidance with others is
      another program.
    description: JSON values that say which guidance this is, for a job's description.
    scales: how much, where; None if it has no scale.
    trained: its own network; None if it has none.
    extrapolates: it combines predictions that were not clipped: x_0 is clipped after it.
    replaces_clipping: nothing else clips x_0.
  """
  role: str
  guide: Callable[[Conditional, Context], Conditional]
  fixed: tuple
  description: dict[str, Any]
  scales: Scales | None = None
  trained: Trained | None = None
  extrapolates: bool = False
  replaces_clipping: bool = False


class Guidance(Protocol):
  """A kind of guidance with its settings."""

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    """Loads what it needs, and checks that it goes with the run.

    Args:
      run: what it is for.
      dtype: its network computes in it; None: as it was trained.
      loaded: its network, where that is there already.

    Raises:
      UsageError: it does not go with the model or the solver.
    """


def own_network(trained: Trained, dtype: str | None) -> Network:
  """Returns the network of a guidance value, computing in `dtype`."""
  return trained.network if dtype is None else trained.network.having(dtype=dtype)


def described_scale(scale: Any, schedule: Schedule) -> Any:
  """Returns a scale as a JSON value: a number, or a list of one for each step."""
  if callable(scale) or getattr(scale, 'ndim', 0) or isinstance(scale, (list, tuple)):
    return scale_table(scale, schedule).tolist()
  return scale if scale is None else float(scale)
