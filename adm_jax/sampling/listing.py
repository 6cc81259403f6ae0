"""The page docs/solvers.md: what solvers and spacings say of themselves.

    python -m adm_jax.sampling.listing > docs/solvers.md
"""

import functools
from typing import Callable

from adm_jax.io import markdown
from adm_jax.sampling import solvers, spacings

_PAGE = '''\
# Solvers and spacings

`python -m adm_jax.sampling.listing > docs/solvers.md` writes this page from the code.

## Solvers

`--solver NAME`, or in Python `solver=solvers.by_name('NAME')` or the function itself.

{solvers}

- **order**: the power of the steps' length with which errors fall: those of the end point, or,
  where noise is drawn, those of the images' mean and variance.
- **evaluations**: of the network per step; every solver asks just once in the step to clean data.
- **deterministic**: draws no noise and follows the flow either way, as `--interpolate` and
  `--reconstruct` need. `ddim` draws noise with `--eta` above 0.
- **may churn**: takes `--churn`, and is then not deterministic.
- **acts alone**: remembers nothing and asks once, as `--classifier-every` needs.
- **steps**: *any* also takes `--steps N` with a spacing; *neighbors* takes `--respacing` only.

A solver of your own is a function without arguments that returns a `solvers.Solver` with a name
and these traits. In a file, it is `--solver FILE.py:FUNCTION`; in a module of
`adm_jax/sampling/solvers/` that lists it in `OFFERED`, it stands in this table and goes by its
name.

## Spacings

`--spacing NAME`: where `--steps N` lie in the process that the network was trained on.

{spacings}

One of your own is a function (schedule, num) -> `steps.Step`: `--spacing FILE.py:FUNCTION`.
'''


def page() -> str:
  """Returns docs/solvers.md as the code has it now."""
  methods = [(maker(), maker) for maker in solvers.offered().values()]
  return _PAGE.format(
      solvers=markdown.table(
          ('name', 'order', 'evaluations', 'deterministic', 'may churn', 'acts alone', 'steps',
           'what it does'),
          [(f'`{solver.name}`', str(solver.order), str(solver.evaluations),
            _yes(solver.deterministic), _yes(solver.may_churn), _yes(solver.acts_alone),
            'neighbors' if solver.neighbors_only else 'any', _summary(maker))
           for solver, maker in methods]),
      spacings=markdown.table(('name', 'what it does'), [
          (f'`{name}`', _summary(space)) for name, space in spacings.OFFERED.items()]))


def _yes(trait: bool) -> str:
  return 'yes' if trait else ''


def _summary(function: Callable) -> str:
  """The first line of a docstring."""
  while isinstance(function, functools.partial):
    function = function.func
  return (function.__doc__ or '').strip().partition('\n')[0]


if __name__ == '__main__':
  print(page(), end='')
