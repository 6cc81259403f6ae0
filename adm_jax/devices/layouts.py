"""How arrays lie in memory, where XLA's own choice is a bad one."""

from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint

from adm_jax.devices import target


def as_stored(grads: Any) -> Any:
  """Gradients, laid out as parameters are: last axis fastest.

  On GPUs cuDNN writes a kernel's gradient with its output channels outermost. Left to itself, XLA
  takes that order for the averages and the optimizer's memory as well, and transposes each of them
  on the way in and out: of the 64 x 64 model's training step half of all bytes. The gradient alone
  is transposed here.
  """
  if target.current().platform != 'gpu':
    return grads
  grads = jax.tree.map(
      lambda leaf: with_layout_constraint(leaf, Layout(tuple(range(leaf.ndim)))), grads)
  # Behind a barrier, or their squares would be transposed beside them.
  return jax.lax.optimization_barrier(grads)
