"""What multistep methods remember, and the polynomial through it."""

import flax.struct
import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError

Array = jax.Array


@flax.struct.dataclass
class Past:
  """The latest K predictions, newest first; those beyond `count` mean nothing."""
  count: Array | int        # i32, at most K
  sigma: tuple[Array, ...]  # f32[] each: where they were made
  x0: tuple[Array, ...]     # [B H W C] each

  @classmethod
  def none(cls, x: Array, size: int) -> 'Past':
    # Arrays of their own each, since a sampler donates them.
    return cls(jnp.int32(0), tuple(jnp.ones((), x.dtype) for _ in range(size)),
               tuple(jnp.zeros_like(x) for _ in range(size)))

  def add(self, sigma: Array, x0: Array) -> 'Past':
    return Past(self.count + 1, (sigma, *self.sigma), (x0, *self.x0))

  def latest(self, size: int) -> 'Past':
    return Past(jnp.minimum(self.count, size), self.sigma[:size], self.x0[:size])

  def mean(self, here: Array, there: Array, used: Array | int, rate: int = 1) -> Array:
    """The mean of x_0 over a step, by the polynomial in lambda through the newest `used` of them.

    Args:
      here: sigma where the step starts.
      there: where it ends.
      used: 1 to K.
      rate: the mean is weighted by exp(rate lambda).
    """
    h = jnp.log(here / there)
    nodes = [jnp.log(here / sigma) / h for sigma in self.sigma]  # 0 is here, 1 is there
    size = len(nodes)
    weights = jnp.stack([
        jnp.stack(_weights(nodes[:k], _moments(rate * h, k)) + [jnp.float32(0)] * (size - k))
        for k in range(1, size + 1)])  # [K K]
    # An order that is not used may divide by zero; a row that is not taken does no harm.
    return sum(weight * x0 for weight, x0 in zip(weights[used - 1], self.x0))


def _moments(h: Array, count: int) -> list[Array]:
  """The means of u^k, k < `count`, for u in [0, 1] weighted by exp(h u)."""
  if count == 2:
    return [1.0, 0.5]  # the papers' choice where nothing more is asked: the limit for small h
  integral = -jnp.expm1(-h)
  whole, means = integral, [1.0]
  for k in range(1, count):
    integral = 1 - k / h * integral
    means.append(integral / whole)
  return means


def _weights(nodes: list[Array], moments: list[Array]) -> list[Array]:
  """w such that sum_i w_i f(nodes_i) is the mean of the polynomial through (nodes, f)."""
  weights = []
  for i, node in enumerate(nodes):
    coefficients = [jnp.float32(1)]  # of Lagrange's polynomial, rising powers
    for other in nodes[:i] + nodes[i + 1:]:
      coefficients = [(a - other * b) / (node - other)
                      for a, b in zip([0, *coefficients], [*coefficients, 0])]
    weights.append(sum(c * m for c, m in zip(coefficients, moments)))
  return weights


def check_order(order: int) -> None:
  if order not in (1, 2, 3):
    raise UsageError(f'order={order}: there are orders 1, 2 and 3')
