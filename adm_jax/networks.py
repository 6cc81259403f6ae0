"""A network as all rooms above see it: a linen module, with what its users must know of it.

A module of your own needs nothing but this contract. It is called as

    module.apply({'params': params}, x, t, y, low_res=low_res, dropout_keys=dropout_keys)

where x is f32[B H W C], t [B] the process's time, y i32[B] the classes, low_res f32[B h w C] and
dropout_keys key[B]. It is given y only if it has classes, low_res only if it enlarges images,
scale=f32[B] only if it was distilled, and dropout_keys only in training, if its `__call__` takes
them. It returns f32[B H W C], or 2 C channels where the variance is learned; a classifier returns
logits [B classes]. Beyond that:

- an attribute `dtype` lets the network compute in bfloat16;
- an attribute `remat` can trade computation for memory in training;
- an attribute `attention_implementation` can choose the kernel of attention;
- a classifier's last layer is called `out`: what comes into it are features (`adm evaluate
  --extractor`).

What a module lacks is not offered.
"""

import dataclasses
import inspect
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.data import sources
from adm_jax.data.sources import Source
from adm_jax.errors import UsageError, one_line
from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.models.encoder import height_width
from adm_jax.process.diffusion import Diffusion

Array = jax.Array
Params = Any
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Network:
  """A module, the process that its inputs come from, and the shapes and classes it is for.

  Attributes:
    module: the network, see above.
    diffusion: the process.
    image_shape: (H, W, C) of its images.
    low_res_shape: (h, w, C) of what an upsampler enlarges; None for other networks.
    num_classes: how many classes images may have; None for a network without.
    null_label: the label that stands for any class, for classifier-free guidance; None for a
      network that has no such label.
    classifies: whether it returns logits [B num_classes] rather than images.
    scales: (low, high), the guidance scales that a distilled network was taught, one of which it is
      told; None for other networks.
    steps: the numbers of steps in which it makes images, of a network that was taught to make
      large ones; None for other networks.
  """
  module: nn.Module
  diffusion: Diffusion
  image_shape: Shape
  low_res_shape: Shape | None = None
  num_classes: int | None = None
  null_label: int | None = None
  classifies: bool = False
  scales: tuple[float, float] | None = None
  steps: tuple[int, ...] | None = None

  def __post_init__(self):
    # Of a config that was read from JSON, or overridden, these are lists.
    for name in ('image_shape', 'low_res_shape'):
      shape = getattr(self, name)
      if shape is not None:
        object.__setattr__(self, name, tuple(shape))
        if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
          raise UsageError(f'{name}={shape}: give three whole numbers above 0: height, width, '
                           'channels')
    if self.classifies and self.num_classes is None:
      raise UsageError('classifies=True, but num_classes=None: say how many classes it knows')
    if self.scales is not None:
      object.__setattr__(self, 'scales', _checked_scales(self.scales))
    if self.steps is not None:
      object.__setattr__(self, 'steps', _checked_steps(self.steps, self.diffusion))
    if not isinstance(self.module, (UNet, SuperRes, Classifier)):
      _check_foreign(self)

  @property
  def takes_labels(self) -> bool:
    """Whether the module is called with y."""
    return self.num_classes is not None and not self.classifies

  def apply(self, params: Params, x: Array, t: Array, y: Array | None = None, *,
            low_res: Array | None = None, scale: Array | None = None,
            dropout_keys: Array | None = None) -> Array:
    """Evaluates the network; y is ignored by a network without classes, scale by one without.

    Raises:
      UsageError: a distilled network is not told a scale.
    """
    if self.scales is not None and scale is None:
      raise UsageError(f'the network was distilled for scales from {self.scales[0]:g} to '
                       f'{self.scales[1]:g}: give a scale for each image')
    return self.module.apply({'params': params}, *self._arguments(x, t, y),
                             **self._keywords(low_res, scale, dropout_keys))

  def init(self, key: Array) -> Params:
    """Draws the initial parameters."""
    x = jnp.zeros((1, *self.image_shape))
    y = jnp.zeros(1, jnp.int32)
    low_res = None if self.low_res_shape is None else jnp.zeros((1, *self.low_res_shape))
    return self.module.init(key, *self._arguments(x, jnp.zeros(1), y),
                            **self._keywords(low_res, jnp.ones(1), None)).get('params', {})

  def abstract_params(self) -> Params:
    """Returns the parameters' tree of `jax.ShapeDtypeStruct`; nothing is computed."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def having(self, **fields: Any) -> 'Network':
    """Returns the network with other fields of its module, where the module has them.

    `having(dtype='bfloat16')`, `having(remat='blocks')`, `having(attention_implementation='xla')`.
    """
    return dataclasses.replace(self, module=_having(self.module, fields))

  def _arguments(self, x, t, y):
    return (x, t, y) if self.takes_labels else (x, t)

  def _keywords(self, low_res, scale, dropout_keys):
    given = {'low_res': low_res, 'scale': None if self.scales is None else scale,
             'dropout_keys': dropout_keys if _takes_dropout_keys(self.module) else None}
    return {name: value for name, value in given.items() if value is not None}


def unet(module: UNet, diffusion: Diffusion, with_null_label: bool = False) -> Network:
  """Describes a `UNet`, class-conditional if it has classes.

  Args:
    module: the U-Net.
    diffusion: the process.
    with_null_label: give the class table one more row, the last, which stands for any class. A
      training task with label dropout teaches it; classifier-free guidance needs it.

  Raises:
    UsageError: output channels that do not go with the process, or a null label without classes.
  """
  image_shape = (*height_width(module.image_size), module.in_channels)
  _check_output(diffusion, image_shape, module.out_channels)
  num_classes = module.num_classes
  if not with_null_label:
    return Network(module, diffusion, image_shape, num_classes=num_classes)
  if num_classes is None:
    raise UsageError('with_null_label=True, but the network has no classes: set its num_classes, '
                     'or with_null_label to False')
  return Network(module.clone(num_classes=num_classes + 1), diffusion, image_shape,
                 num_classes=num_classes, null_label=num_classes)


def student(module: UNet, diffusion: Diffusion, scales: tuple[float, float],
            steps: tuple[int, ...] | None = None, with_null_label: bool = False) -> Network:
  """Describes a `UNet` that is distilled from a guided one, and is told the scale.

  Args:
    module: the U-Net; `takes_scale` is set.
    diffusion: the teacher's schedule, with what the student predicts: `TemperedEps` or `V`, and a
      fixed variance.
    scales: (low, high) of the guidance that it learns.
    steps: the numbers of steps that it learns to make images in; None: small ones.
    with_null_label: as the teacher has it, see `unet`.

  Raises:
    UsageError: output channels that do not go with the process, or scales or steps that cannot be.
  """
  network = unet(module.clone(takes_scale=True), diffusion, with_null_label)
  return dataclasses.replace(network, scales=scales, steps=steps)


def superres(module: SuperRes, diffusion: Diffusion,
             low_res_size: int | tuple[int, int]) -> Network:
  """Describes a `SuperRes`.

  Args:
    module: the upsampler.
    diffusion: the process.
    low_res_size: h = w, or (h, w), in pixels, of the images that it enlarges.

  Raises:
    UsageError: output channels that do not go with the process.
  """
  inner = module.unet
  image_shape = (*height_width(inner.image_size), inner.in_channels // 2)
  _check_output(diffusion, image_shape, inner.out_channels)
  return Network(module, diffusion, image_shape,
                 low_res_shape=(*height_width(low_res_size), image_shape[-1]),
                 num_classes=inner.num_classes)


def classifier(module: Classifier, diffusion: Diffusion) -> Network:
  """Describes a `Classifier` of noised images.

  Args:
    module: the classifier.
    diffusion: what noises them; only its schedule matters.
  """
  return Network(module, diffusion, (*height_width(module.image_size), module.in_channels),
                 num_classes=module.num_classes, classifies=True)


def check_source(network: Network, source: Source) -> None:
  """Raises UsageError unless the images and classes of `source` are what the network is for."""
  sources.check(source)
  if source.image_shape != network.image_shape:
    raise UsageError(f'{source.name} has images of {source.image_shape} (H, W, C), the network is '
                     f'for {network.image_shape}: set image_size and in_channels of the network')
  num_classes = network.num_classes
  if num_classes is not None and not source.class_names:
    raise UsageError(f'{source.name} has no labels, but the network is for {num_classes} classes: '
                     'say where labels are (labels of the data), or set num_classes to None')
  if num_classes is not None and len(source.class_names) > num_classes:
    raise UsageError(f'{source.name} has {len(source.class_names)} classes, the network '
                     f'{num_classes}: set num_classes to {len(source.class_names)}')


def _checked_scales(scales: Any) -> tuple[float, float]:
  scales = tuple(scales)
  if len(scales) != 2 or not -math.inf < scales[0] < scales[1] < math.inf:
    raise UsageError(f'scales={scales}: give the lowest and the highest, as (0, 4)')
  return scales


def _checked_steps(steps: Any, diffusion: Diffusion) -> tuple[int, ...]:
  steps, most = tuple(steps), diffusion.schedule.num_steps
  if not steps or not all(isinstance(step, int) and 1 <= step <= most for step in steps):
    raise UsageError(f'steps={steps}: give numbers of steps from 1 to {most}, as (4,)')
  return steps


def _check_output(diffusion: Diffusion, image_shape: Shape, out_channels: int) -> None:
  wanted = diffusion.output_channels(image_shape[-1])
  if out_channels != wanted:
    raise UsageError(f'the network has out_channels={out_channels}, but images of '
                     f'{image_shape[-1]} channels with {diffusion.variance} need {wanted}')


def _check_foreign(network: Network) -> None:
  """Raises UsageError unless a module of a user's own keeps the contract; nothing is computed."""
  module = network.module
  name = type(module).__name__
  if not isinstance(module, nn.Module):
    raise UsageError(f'{module!r} is no linen module: give an instance of a flax.linen.Module')
  given = (f'{name} is called with x f32[1 {" ".join(map(str, network.image_shape))}], t f32[1]'
           + (', y i32[1]' if network.takes_labels else '')
           + ('' if network.low_res_shape is None else ', low_res=')
           + ('' if network.scales is None else ', scale='))
  try:
    params = network.abstract_params()
    x = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
    low_res = (None if network.low_res_shape is None
               else jax.ShapeDtypeStruct((1, *network.low_res_shape), jnp.float32))
    one = jax.ShapeDtypeStruct((1,), jnp.float32)
    found = jax.eval_shape(
        lambda params, x, t, y, low_res, scale: network.apply(params, x, t, y, low_res=low_res,
                                                              scale=scale),
        params, x, one, jax.ShapeDtypeStruct((1,), jnp.int32), low_res, one)
  except Exception as error:
    reason = one_line(error, 300)
    raise UsageError(f'{given}, and fails: {type(error).__name__}: {reason}') from error
  channels = network.diffusion.output_channels(network.image_shape[-1])
  wanted = ((1, network.num_classes) if network.classifies
            else (1, *network.image_shape[:2], channels))
  shape = getattr(found, 'shape', None)
  if shape != wanted:
    raise UsageError(f'{given}, and returns {shape}: it should return {wanted}'
                     + ('' if network.classifies else f', with {network.diffusion.variance}'))


def _takes_dropout_keys(module: nn.Module) -> bool:
  parameters = inspect.signature(type(module).__call__).parameters.values()
  return any(parameter.name == 'dropout_keys' or parameter.kind == parameter.VAR_KEYWORD
             for parameter in parameters)


def _having(module: nn.Module, fields: dict[str, Any]) -> nn.Module:
  """Clones a module with those of `fields` that it has, or that a module inside of it has."""
  changes = {}
  for field in dataclasses.fields(module):
    value = getattr(module, field.name, None)
    if field.name in fields:
      changes[field.name] = fields[field.name]
    elif isinstance(value, nn.Module) and field.name != 'parent':
      changes[field.name] = _having(value, fields)
  return module.clone(**changes) if changes else module
