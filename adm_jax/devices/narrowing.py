"""Weights in the 16 bits that a program reads them in.

A network that computes in bfloat16 rounds its float32 weights where it uses them, which a sampling
scan would do again in every step: 1.6 of the 9.5 GB that a step of the 64 x 64 model moves on an
H100. Rounding them once gives the same bits, and takes half the memory.

Which weights these are is read off the traced program, so that no list of names can fall behind the
networks, and a module or guidance of a user's own is treated alike.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


def read_dtypes(function: Callable, params: Any, *args: Any) -> Any:
  """The dtype in which `function(params, *args)` reads each array of `params`.

  Args:
    function: what is to be traced.
    params: a tree of arrays or shapes.
    *args: further arguments, arrays or shapes.

  Returns:
    A tree of dtypes: 16 bits where that is all the program ever looks at, else the array's own.
  """
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
  leaves, tree = jax.tree.flatten(shapes)
  readings = _readings(jax.make_jaxpr(function)(shapes, *args).jaxpr)[:len(leaves)]
  return jax.tree.unflatten(tree, [
      found.pop() if len(found) == 1 and _narrows(leaf.dtype, *found) else np.dtype(leaf.dtype)
      for leaf, found in zip(leaves, readings, strict=True)])


def _narrows(own: Any, read: Any) -> bool:
  return (read is not None and jnp.issubdtype(own, jnp.floating) and
          jnp.issubdtype(read, jnp.floating) and read.itemsize == 2 < np.dtype(own).itemsize)


def _readings(jaxpr: core.Jaxpr) -> list[set]:
  """For each argument, what its uses make of it: a dtype it is converted to, None any other use."""
  found = {var: set() for var in jaxpr.invars}
  for out in jaxpr.outvars:
    if isinstance(out, core.Var) and out in found:
      found[out].add(None)
  for equation in jaxpr.eqns:
    used = [(place, var) for place, var in enumerate(equation.invars)
            if isinstance(var, core.Var) and var in found]
    if used:
      ways = _of_equation(equation)
      for place, var in used:
        found[var] |= ways(place)
  return [found[var] for var in jaxpr.invars]


def _of_equation(equation: core.JaxprEqn) -> Callable[[int], set]:
  """What an equation makes of its argument at a place."""
  if equation.primitive.name == 'convert_element_type':
    return lambda place: {np.dtype(equation.params['new_dtype'])}
  # The arguments of programs inside are the last of the equation's: a `cond` has its index first.
  inner = [(len(equation.invars) - len(program.invars), _readings(program))
           for program in _inner(equation)]
  if not inner:
    return lambda place: {None}
  return lambda place: set().union(*(
      found[place - skipped] if place >= skipped else {None} for skipped, found in inner))


# What only calls another program, with its own arguments.
_CALLS = ('jit', 'pjit', 'closed_call', 'remat', 'remat2', 'checkpoint', 'cond', 'scan',
          'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')


def _inner(equation: core.JaxprEqn) -> list[core.Jaxpr]:
  if equation.primitive.name not in _CALLS:
    return []
  found = []
  for value in equation.params.values():
    found += value if isinstance(value, (tuple, list)) else [value]
  found = [getattr(value, 'jaxpr', value) for value in found]
  return [value for value in found if isinstance(value, core.Jaxpr)]
