"""One step of sampling each.

Like an optax transformation, a solver is a pair of pure functions. `step` sees the model only as a
denoiser, and its place in the process only as a `Step`; multistep methods keep earlier predictions
in `memory`.

A new solver is one function without arguments, or with options, in a module of this package that
lists it in a constant OFFERED; nothing else changes. It carries its name and its traits (`Solver`),
from which the command line, its checks and docs/solvers.md know it. Or it stays in a file of one's
own, and `by_name` takes FILE.py:FUNCTION.

The denoiser is asked at steps that the network was trained on, never between them: where a method
wants another noise level, such as halfway through a step, it takes the nearest, as EDM does with
ADM's networks (Karras et al. 2022, appendix C.3.4), and computes with that level's own sigma. So
the formulas here are those of uneven steps, and rounding costs no order of convergence.

The methods beyond the reference's two integrate the probability flow in EDM's coordinates,
x / sqrt(alpha_bar), where a prediction x_0 that does not change over a step carries x straight:

    x' = ratio x + (1 - ratio) x_0,    ratio = sigma' / sigma = exp(-h)

h is the step in lambda = -log sigma. Learned variances do not enter. Guidance does by way of x_0
and eps, as in DDIM.
"""

import importlib
import pkgutil
from typing import Any, Callable

from adm_jax.errors import UsageError
from adm_jax.io import functions
from adm_jax.sampling import offers
from adm_jax.sampling.solvers.ancestral import ancestral
from adm_jax.sampling.solvers.base import Solver, num_evaluations
from adm_jax.sampling.solvers.ddim import ddim
from adm_jax.sampling.solvers.dpm import dpm_multistep, dpm_singlestep
from adm_jax.sampling.solvers.edm import churned, euler, heun
from adm_jax.sampling.solvers.unipc import unipc
from adm_jax.sampling.steps import Step, ascend, descend, to_clean, walk

__all__ = ['Solver', 'Step', 'ancestral', 'ascend', 'by_name', 'churned', 'ddim', 'descend',
           'dpm_multistep', 'dpm_singlestep', 'euler', 'having', 'heun', 'num_evaluations',
           'offered', 'options', 'to_clean', 'unipc', 'walk']


def offered() -> dict[str, Callable[..., Solver]]:
  """Finds what makes each solver of this package, by its name."""
  makers = {}
  for found in pkgutil.iter_modules(__path__):
    for maker in getattr(importlib.import_module(f'{__name__}.{found.name}'), 'OFFERED', ()):
      name = maker().name
      if name in makers:
        raise UsageError(f'{__name__}.{found.name} offers a second solver {name!r}: rename it')
      makers[name] = maker
  return makers


def by_name(name: str, **given: Any) -> Solver:
  """Returns the solver called `name`, or the one that a function FILE.py:FUNCTION returns.

  Args:
    name: one of `offered`, or FILE.py:FUNCTION.
    **given: options of what makes it, such as `eta`.

  Raises:
    UsageError: there is none, or it has no such option.
  """
  solver = offers.chosen('solver', name, offered(), given)()
  if not isinstance(solver, Solver):
    raise UsageError(f'{name} returns a {type(solver).__name__}: a solver is a function that '
                     'returns a solvers.Solver')
  # Somebody's own goes by its file, with a checksum, so that jobs know when it has changed.
  return solver._replace(name=functions.described(name)) if functions.is_own(name) else solver


def options(name: str) -> list[str]:
  """Lists the options that `by_name` takes for this solver."""
  return offers.options(offers.find('solver', name, offered()))


def having(option: str) -> list[str]:
  """Names the solvers that have an option."""
  return offers.having(option, offered())
