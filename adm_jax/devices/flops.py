"""How much arithmetic a program is: multiplications and additions of its convolutions and products.

Counted from the traced program, so that no formula can fall behind the networks. A compiler's own
figure depends on how it rewrites convolutions.
"""

import math
from typing import Any, Callable

import jax
from jax.extend import core

from adm_jax.devices.target import plain_forms


def count(fn: Callable, *args: Any) -> float:
  """FLOPs of `fn(*args)`, arrays or shapes: 2 for each multiplication in a convolution or product.

  Exact for `conv_general_dilated` without padding's savings, and for `dot_general`; everything else
  is free. Loops count as often as they run, except `while`, whose length is unknown: once. Of
  `cond`s and choices by platform the costliest branch counts.
  """
  return _total(_operations, _traced(fn, args))


def traffic(fn: Callable, *args: Any) -> float:
  """Bytes that the convolutions and products of `fn(*args)` read and write, each array once.

  What memory moves at the least, were all else fused into them; counted in the same way as `count`.
  """
  return _total(_bytes, _traced(fn, args))


def _traced(fn: Callable, args: tuple) -> core.Jaxpr:
  """The program in the forms that any device takes: kernels of a device's own hide what they do."""
  with plain_forms():
    # A function of its own: of `fn` JAX may have kept what was traced for a device before.
    return jax.make_jaxpr(lambda *args: fn(*args))(*args).jaxpr


def _total(measure: Callable[[core.JaxprEqn], float], jaxpr: core.Jaxpr) -> float:
  """The sum of what `measure` says of each convolution and product."""
  def of_equation(equation):
    name, params = equation.primitive.name, equation.params
    if name in ('conv_general_dilated', 'dot_general'):
      return measure(equation)
    if name == 'cond':
      return max(_total(measure, branch.jaxpr) for branch in params['branches'])
    return params.get('length', 1) * sum(_total(measure, inner) for inner in _inner(params))
  return sum(map(of_equation, jaxpr.eqns))


def _bytes(equation: core.JaxprEqn) -> float:
  return sum(math.prod(value.aval.shape) * value.aval.dtype.itemsize
             for value in (*equation.invars, *equation.outvars))


def _operations(equation: core.JaxprEqn) -> float:
  name, params = equation.primitive.name, equation.params
  if name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    out_channels = kernel[params['dimension_numbers'].rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / out_channels
  contracted, _ = params['dimension_numbers']
  lhs = equation.invars[0].aval.shape
  return (2 * math.prod(equation.outvars[0].aval.shape)
          * math.prod(lhs[axis] for axis in contracted[0]))


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
  """The programs inside an equation: of a scan, a jit, a checkpoint, a custom derivative."""
  found = [value for key, value in params.items() if not key.startswith(('fwd', 'bwd'))]
  found = [getattr(value, 'jaxpr', value) for value in found]
  return [value for value in found if isinstance(value, core.Jaxpr)]
