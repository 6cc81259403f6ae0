"""How a distilled network is sampled: in the steps it was taught, with a scale that it is told.

    adm = load('fashion-student', guidance=(Distilled(2.0),), steps=4)
"""

from typing import Callable, Sequence

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.process.schedules import Schedule
from adm_jax.sampling import courses, solvers, spacings
from adm_jax.sampling.guidance import Distilled, Guidance
from adm_jax.sampling.guidance.base import Run
from adm_jax.sampling.steps import Step

SOLVER, SPACING = 'ddim', 'trailing'


def solver(network: Network, given: solvers.Solver | str | None) -> solvers.Solver | str:
  """The method that a network is sampled by, where none is given."""
  if given is not None:
    return given
  return 'ancestral' if network.steps is None else SOLVER


def course(network: Network, steps: int | str | courses.Course | None,
           spacing: str | Callable[[Schedule, int], Step] | None,
           method: solvers.Solver) -> courses.Course:
  """The steps that `pipeline.load`'s words mean: of a student, those that it was taught."""
  its_own = network.steps is not None and not method.neighbors_only
  if its_own and spacing is None and not isinstance(steps, (str, courses.Course)):
    return courses.of(max(network.steps) if steps is None else steps, SPACING, method)
  return courses.of(steps, spacing, method)


def guidance(network: Network, given: Sequence[Guidance]) -> tuple[Guidance, ...]:
  """`given`; and a student, which must be told a scale, is told one in the middle of its range."""
  if network.scales is None or any(isinstance(value, Distilled) for value in given):
    return tuple(given)
  return (Distilled(), *given)


def check(run: Run) -> None:
  """Raises UsageError where a student is asked for steps that it was not taught."""
  network, name = run.model.network, run.name or 'the model'
  if network.steps is None:
    return
  known = ' or '.join(map(str, sorted(network.steps)))
  if run.solver.name != SOLVER or not run.solver.deterministic:
    raise UsageError(f'{name} was distilled for {known} steps of {SOLVER} without noise: leave out '
                     f'the solver {run.solver.name} and its options')
  taken, most = np.asarray(run.steps.t), run.schedule.num_train_steps
  if run.schedule.num_steps != most or len(taken) not in network.steps:
    raise UsageError(f'{name} was distilled for {known} steps and no others: ask for {known}, not '
                     f'{len(taken)}')
  if not np.array_equal(taken, spacings.trailing(run.schedule, len(taken)).t):
    raise UsageError(f'{name} was distilled for {known} steps at places of their own: leave out '
                     'the spacing and where to start')
