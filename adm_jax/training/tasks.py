"""What is trained: a network that makes images, or a classifier of noisy ones.

A task is a network and two pure functions; `steps.train_step` does the rest, the same for all.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adm_jax.errors import UsageError
from adm_jax.io.pixels import shrink, to_float
from adm_jax.networks import Network, check_source
from adm_jax.process import losses
from adm_jax.process.diffusion import q_sample
from adm_jax.sampling.sampler import normal_each

Array = jax.Array
Params = Any

# A stream of an example's key beside its noise.
_LABEL_DROPOUT = 1


class Task(NamedTuple):
  """A network and its loss.

  Attributes:
    network: what is trained.
    terms: (params, frozen, examples, dropout_keys key[B] or None) -> dict of f32[B], of which
      `loss` is minimized; each example's depend on it alone, and without keys there is no dropout.
      `frozen` is the tree of that name, on devices. `examples` is a batch with, beside `image`
      uint8[B H W C] and `label` i32[B], `t` i32[B], `key` key[B], the source of the example's
      noise, and `step` i32[B], how many steps of training there have been.
    check: (source) -> None; raises UsageError if the data cannot be what the network is for.
    frozen: a tree of arrays that the loss needs and that are not trained, as a teacher's weights,
      or of their shapes. They are placed like parameters and never checkpointed.
    load_frozen: reads the arrays that `frozen` has the shapes of, when training begins; None where
      they are there. So a run can be described, and planned, without its teacher's weights.
  """
  network: Network
  terms: Callable[[Params, Any, dict, Array | None], dict[str, Array]]
  check: Callable[[Any], None]
  frozen: Any = ()
  load_frozen: Callable[[], Any] | None = None


def diffusion(network: Network, objective: losses.Objective = losses.mse,
              label_dropout: float = 0.0) -> Task:
  """Trains a network that makes images, or enlarges area-averaged copies of them.

  Args:
    network: a U-Net's, an upsampler's, or one of your own.
    objective: what is minimized, as `losses.mse`.
    label_dropout: the share of examples whose label is hidden in training behind the network's
      null label, for classifier-free guidance.

  Raises:
    UsageError: a network that classifies, or label dropout without a null label.
  """
  if network.classifies:
    raise UsageError('the network is a classifier, which tasks.classifier trains')
  if not 0 <= label_dropout < 1:
    raise UsageError(f'label_dropout={label_dropout}: give a share in [0, 1)')
  if label_dropout and network.null_label is None:
    raise UsageError(f'label_dropout={label_dropout}, but the network has no label that stands for '
                     'any class: set network.with_null_label=True and its num_classes, or '
                     'label_dropout to 0')

  def labels(examples, train):
    if not label_dropout or not train:
      return examples['label']
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(examples['key'], _LABEL_DROPOUT)
    hidden = jax.vmap(lambda key: jax.random.bernoulli(key, label_dropout))(keys)
    return jnp.where(hidden, network.null_label, examples['label'])

  def terms(params, frozen, examples, dropout_keys):
    del frozen
    x0 = to_float(examples['image'])
    y = labels(examples, train=dropout_keys is not None)
    low_res = (None if network.low_res_shape is None
               else shrink(x0, *network.low_res_shape[:2]))
    def evaluate(x, time):
      return network.apply(params, x, time, y, low_res=low_res, dropout_keys=dropout_keys)
    eps = normal_each(examples['key'], x0.shape[1:])
    return objective(network.diffusion, evaluate, x0, examples['t'], eps)

  return Task(network, terms, lambda source: check_source(network, source))


def among_first(logits: Array, label: Array, count: int) -> Array:
  """Returns f32[B]: 1 where the label's logit is one of the `count` largest of logits [B K].

  Classes that tie with the label, or are NaN, count as ahead of it: a network that has collapsed to
  one value for all classes is never right by that. A label whose own logit is NaN is wrong.
  """
  right = jnp.take_along_axis(logits, label[:, None], axis=-1)
  ahead = (~(logits < right)).sum(axis=-1) - 1  # without the label itself
  return ((ahead < count) & ~jnp.isnan(right[:, 0])).astype(jnp.float32)


def classifier(network: Network, noised: bool = True) -> Task:
  """Trains a classifier on noised images, with its top-1 and top-5 accuracy.

  Args:
    network: what classifies.
    noised: False trains on clean images, at time 0.

  Raises:
    UsageError: a network that makes images.
  """
  if not network.classifies:
    raise UsageError('the network makes images, which tasks.diffusion trains')
  schedule = network.diffusion.schedule

  def terms(params, frozen, examples, dropout_keys):
    del frozen
    x, t = to_float(examples['image']), examples['t']
    if noised:
      x = q_sample(schedule, x, t, normal_each(examples['key'], x.shape[1:]))
    else:
      t = jnp.zeros_like(t)
    logits = network.apply(params, x, schedule.network_time(t), dropout_keys=dropout_keys)
    label = examples['label']
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    top1, top5 = (among_first(logits, label, count) for count in (1, 5))
    return {'loss': loss, 'accuracy_top1': top1, 'accuracy_top5': top5}

  return Task(network, terms, lambda source: check_source(network, source))
