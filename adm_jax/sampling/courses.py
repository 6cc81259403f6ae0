"""Which steps a sampling run takes, in a user's words: 250, 'ddim25', 20 along a spacing."""

import dataclasses
from typing import Any, Callable, Mapping

import jax
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io import digests, functions
from adm_jax.process.schedules import Schedule
from adm_jax.sampling import solvers, spacings
from adm_jax.sampling.steps import Step, descend

# Of a spacing, where no number is given.
DEFAULT_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Course:
  """Which steps a run takes.

  Attributes:
    respacing: which steps of the process there are ('250', 'ddim25', '90,60,60,20,20'; '' for all);
      None: the paper's for the model, or 250 of them.
    steps: where the solver goes in the respaced schedule.
    words: JSON values that say where that is, for a job's description; where all are None, a digest
      of the steps says it.
    name: what a function that chose the steps is called there; a job may go on under another.
  """
  respacing: str | None = None
  steps: Callable[[Schedule], Step] = descend
  words: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {
      'steps': None, 'spacing': None, 'churn': None, 'from_step': None})
  name: str | None = None

  def described(self, found: Step, schedule: Schedule) -> dict[str, Any]:
    """Returns JSON values that tell the steps `found` in `schedule` from others."""
    told = self.steps is descend or any(word is not None for word in self.words.values())
    if told or _content(found) == _content(descend(schedule)):
      return dict(self.words)
    return {**self.words, 'steps': len(found.t),
            'spacing': {'name': self.name, 'digest': digests.short(_content(found))}}


def of(steps: int | str | Course | None, spacing: str | Callable | None,
       solver: solvers.Solver) -> Course:
  """Returns the course that `pipeline.load`'s words mean.

  Raises:
    UsageError: a spacing for a solver that takes steps one by one, or for a respacing.
  """
  if spacing is not None and not isinstance(spacing, str) and not callable(spacing):
    raise UsageError(f'spacing={spacing!r}: give its name, as \'karras\', or a function '
                     '(schedule, num) -> Step')
  if isinstance(steps, Course):
    if spacing is not None:
      raise UsageError('a Course says where the steps lie: leave out spacing')
    return steps
  if isinstance(steps, str):
    if spacing is not None:
      raise UsageError(f'steps={steps!r} is a respacing, and spacing another way to choose the '
                       'steps: give one')
    return Course(steps)
  if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
    raise UsageError(f'steps={steps!r}: give a whole number from 1 on')
  if solver.neighbors_only:
    if spacing is not None:
      raise UsageError(f'spacing leads past steps, and {solver.name} sampling takes them one by '
                       'one: leave it out, or give another solver')
    return Course(None if steps is None else str(steps))
  if steps is None and spacing is None:
    return Course()
  num = DEFAULT_STEPS if steps is None else steps
  if callable(spacing):
    function = getattr(spacing, 'func', spacing)  # of a partial, as `spacings.by_name` returns
    return Course('', lambda schedule: spacing(schedule, num),
                  name=getattr(function, '__name__', type(function).__name__))
  place = spacings.by_name(spacing or 'time')
  return Course('', lambda schedule: place(schedule, num), {
      **Course().words, 'steps': steps, 'spacing': spacing and functions.described(spacing)})


def _content(steps: Step) -> bytes:
  return b''.join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(steps))
