"""The judge: a small function of an image alone, all of whose parameters learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.models import Judge


def small():
  """(module, params, x f32[3 9 7 1]): sides that do not halve evenly."""
  module = Judge(num_classes=5, channels=(4, 8), features=6)
  x = jax.random.normal(jax.random.key(0), (3, 9, 7, 1))
  return module, module.init(jax.random.key(1), x, jnp.zeros(3))['params'], x


def test_it_is_a_function_of_each_image_alone():
  module, params, x = small()
  def logits(x, t):
    return module.apply({'params': params}, x, t)
  together = logits(x, jnp.zeros(3))
  assert together.shape == (3, 5) and together.dtype == jnp.float32
  np.testing.assert_array_equal(logits(x, jnp.full(3, 900)), together)
  other = logits(x.at[1, 0, 0].add(1.0), jnp.zeros(3))
  np.testing.assert_allclose(other[::2], together[::2], atol=1e-6)
  assert jnp.abs(other[1] - together[1]).max() > 1e-4


def test_the_gradient_reaches_every_parameter():
  module, params, x = small()
  gradient = jax.grad(lambda params: (module.apply({'params': params}, x, None) ** 2).sum())(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_its_convolutions_have_the_gradient_that_is_fast_in_a_scan():
  module, params, x = small()
  program = jax.make_jaxpr(lambda x: module.apply({'params': params}, x, None))(x)
  kinds = [equation.primitive.name for equation in program.eqns]
  assert kinds.count('custom_vjp_call') == 2 and 'conv_general_dilated' not in kinds


def test_images_that_cannot_be_halved_so_often_are_refused():
  with pytest.raises(UsageError, match='7 x 9 cannot be halved 3 times: give sides from 8 on'):
    Judge(num_classes=2).init(jax.random.key(0), jnp.zeros((1, 7, 9, 1)), None)


def test_for_fashion_it_has_93_thousand_parameters():
  shapes = jax.eval_shape(Judge(num_classes=10).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)),
                          jnp.zeros(1))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 93_322
