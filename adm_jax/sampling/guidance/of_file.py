"""Guidance in a file of somebody's own."""

import dataclasses

from adm_jax.errors import UsageError
from adm_jax.io import functions
from adm_jax.sampling.guidance.base import Bound, Guidance, Run
from adm_jax.weights.folders import Trained


@dataclasses.dataclass(frozen=True)
class OfFile:
  """The value that a function returns, under its file's name, so that jobs know which it is.

  Attributes:
    name: FILE.py:FUNCTION, a function without arguments.
  """
  name: str

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    value = self._value()
    bound = functions.guarded(value.bind, self.name)(run, dtype, loaded)
    if not isinstance(bound, Bound):
      raise UsageError(f'{self.name}: bind returns a {type(bound).__name__}, not a guidance.Bound')
    named = {'from': functions.described(self.name)}
    return bound._replace(description={**bound.description, **named},
                          fixed=(*bound.fixed, named['from']))

  def _value(self) -> Guidance:
    value = functions.guarded(functions.load(self.name), self.name)()
    if not callable(getattr(value, 'bind', None)):
      raise UsageError(f'{self.name} returns a {type(value).__name__}, which has no bind: return a '
                       'guidance value, as guidance.ClassifierFree(2.0)')
    return value
