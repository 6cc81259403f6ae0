"""What is trained: the U-Net, the upsampler, or the classifier of noisy images.

A task is two pure functions; `steps.train_step` does the rest, the same for all three.
"""

from typing import Any, Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from adm_jax.errors import UsageError
from adm_jax.io.pixels import check_divides, shrink, to_float
from adm_jax.models.encoder import height_width
from adm_jax.process import losses
from adm_jax.process.diffusion import Diffusion, q_sample
from adm_jax.sampling.sampler import normal_each

Array = jax.Array
Params = Any

# A stream of an example's key beside its noise.
_LABEL_DROPOUT = 1


class Task(NamedTuple):
  """A network and its loss.

  Attributes:
    model: the network.
    diffusion: the process its inputs are noised by.
    image_shape: (H, W, C) of the images that the network is for.
    init: key -> params.
    terms: (params, examples, dropout_keys key[B] or None) -> dict of f32[B], of which `loss` is
      minimised; each example's depend on it alone, and without keys there is no dropout.
      `examples` is a batch with, beside `image` uint8[B H W C] and `label` i32[B], `t` i32[B] and
      `key` key[B], the source of the example's noise.
    check: (source) -> None; raises UsageError if the data cannot be what the network is for.
    low_res_shape: (h, w, C) of what an upsampler enlarges; None for other networks.
    null_label: the label that stands for any class; None for a network that has no such row.
  """
  model: nn.Module
  diffusion: Diffusion
  image_shape: tuple[int, int, int]
  init: Callable[[Array], Params]
  terms: Callable[[Params, dict, Array | None], dict[str, Array]]
  check: Callable[[Any], None]
  low_res_shape: tuple[int, int, int] | None = None
  null_label: int | None = None

  @property
  def num_classes(self) -> int | None:
    """How many classes the data may have; None for a network without."""
    return self.model.num_classes if self.null_label is None else self.null_label


def _check_images(source, image_shape) -> None:
  if source.image_shape != image_shape:
    raise UsageError(f'{source.name} has images of {source.image_shape} (H, W, C), the network is '
                     f'for {image_shape}: set image_size and in_channels of the network')


def _check_classes(source, num_classes) -> None:
  if num_classes is not None and not source.class_names:
    raise UsageError(f'{source.name} has no labels, but the network is for {num_classes} classes: '
                     'say where labels are (labels of the data), or set num_classes to None')
  if num_classes is not None and len(source.class_names) > num_classes:
    raise UsageError(f'{source.name} has {len(source.class_names)} classes, the network '
                     f'{num_classes}: set num_classes to {len(source.class_names)}')


def _check_label_dropout(label_dropout, num_classes) -> None:
  if not 0 <= label_dropout < 1:
    raise UsageError(f'label_dropout={label_dropout}: give a share in [0, 1)')
  if num_classes is None:
    raise UsageError(f'label_dropout={label_dropout}, but the network has no classes: set its '
                     'num_classes, or label_dropout to 0')


def _check_output(diffusion, image_shape, out_channels) -> None:
  wanted = diffusion.output_channels(image_shape[-1])
  if out_channels != wanted:
    raise UsageError(f'the network has out_channels={out_channels}, but images of '
                     f'{image_shape[-1]} channels with {diffusion.variance} need {wanted}')


def diffusion(model: nn.Module, diffusion: Diffusion,
              objective: losses.Objective = losses.mse, label_dropout: float = 0.0) -> Task:
  """Trains a `UNet`, class-conditional if it has classes.

  Args:
    model: the network.
    diffusion: the process it belongs to.
    objective: see `losses`.
    label_dropout: the share of examples whose label is hidden in training, for classifier-free
      guidance. If not 0, the class table gets one more row, the last, which stands for any class.
  """
  num_classes, null_label = model.num_classes, None
  if label_dropout:
    _check_label_dropout(label_dropout, num_classes)
    null_label = num_classes
    model = model.clone(num_classes=num_classes + 1)

  def labels(examples, train):
    if num_classes is None:
      return None
    if null_label is None or not train:
      return examples['label']
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(examples['key'], _LABEL_DROPOUT)
    hidden = jax.vmap(lambda key: jax.random.bernoulli(key, label_dropout))(keys)
    return jnp.where(hidden, null_label, examples['label'])

  image_shape = (*height_width(model.image_size), model.in_channels)

  def init(key):
    label = None if num_classes is None else jnp.zeros(1, jnp.int32)
    return model.init(key, jnp.zeros((1, *image_shape)), jnp.zeros(1), label)['params']

  def terms(params, examples, dropout_keys):
    x0 = to_float(examples['image'])
    y = labels(examples, train=dropout_keys is not None)
    def network(x, time):
      return model.apply({'params': params}, x, time, y, dropout_keys=dropout_keys)
    eps = normal_each(examples['key'], x0.shape[1:])
    return objective(diffusion, network, x0, examples['t'], eps)

  def check(source):
    _check_images(source, image_shape)
    _check_classes(source, num_classes)

  _check_output(diffusion, image_shape, model.out_channels)
  return Task(model, diffusion, image_shape, init, terms, check, null_label=null_label)


def superres(model: nn.Module, diffusion: Diffusion, low_res_size: int | tuple[int, int],
             objective: losses.Objective = losses.mse) -> Task:
  """Trains a `SuperRes` on images and their area-averaged copies of `low_res_size`."""
  unet = model.unet
  image_shape = (*height_width(unet.image_size), unet.in_channels // 2)
  low_res_shape = (*height_width(low_res_size), image_shape[-1])

  def init(key):
    label = None if unet.num_classes is None else jnp.zeros(1, jnp.int32)
    low_res = jnp.zeros((1, *low_res_shape))
    return model.init(key, jnp.zeros((1, *image_shape)), jnp.zeros(1), label,
                      low_res=low_res)['params']

  def terms(params, examples, dropout_keys):
    x0 = to_float(examples['image'])
    low_res = shrink(x0, *low_res_shape[:2])
    label = None if unet.num_classes is None else examples['label']
    def network(x, time):
      return model.apply({'params': params}, x, time, label, low_res=low_res,
                         dropout_keys=dropout_keys)
    eps = normal_each(examples['key'], x0.shape[1:])
    return objective(diffusion, network, x0, examples['t'], eps)

  def check(source):
    _check_images(source, image_shape)
    _check_classes(source, unet.num_classes)

  _check_output(diffusion, image_shape, unet.out_channels)
  check_divides(image_shape[:2], low_res_shape[:2])
  return Task(model, diffusion, image_shape, init, terms, check, low_res_shape)


def classifier(model: nn.Module, diffusion: Diffusion, noised: bool = True) -> Task:
  """Trains a `Classifier` on noised images, with its top-1 and top-5 accuracy.

  Args:
    model: the network.
    diffusion: only its schedule matters.
    noised: False trains on clean images, at time 0.
  """
  image_shape = (*height_width(model.image_size), model.in_channels)

  def init(key):
    return model.init(key, jnp.zeros((1, *image_shape)), jnp.zeros(1))['params']

  def terms(params, examples, dropout_keys):
    x, t = to_float(examples['image']), examples['t']
    if noised:
      x = q_sample(diffusion.schedule, x, t, normal_each(examples['key'], x.shape[1:]))
    else:
      t = jnp.zeros_like(t)
    logits = model.apply({'params': params}, x, diffusion.schedule.network_time(t),
                         dropout_keys=dropout_keys)
    label = examples['label']
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    # How many classes are ahead of the right one.
    right = jnp.take_along_axis(logits, label[:, None], axis=-1)
    rank = (logits > right).sum(axis=-1)
    return {'loss': loss, 'accuracy_top1': (rank < 1).astype(jnp.float32),
            'accuracy_top5': (rank < 5).astype(jnp.float32)}

  def check(source):
    _check_images(source, image_shape)
    _check_classes(source, model.num_classes)

  return Task(model, diffusion, image_shape, init, terms, check)
