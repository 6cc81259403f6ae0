"""What a state dict's shapes say of its network, and what they leave open."""

import math
from typing import Any, Mapping, NamedTuple

from adm_jax.errors import UsageError, one_line
from adm_jax.weights import openai
from adm_jax.weights.flags import CHANNEL_MULT, create

Shapes = Mapping[str, tuple[int, ...]]


class Inferred(NamedTuple):
  """A network that the shapes fit.

  Attributes:
    kind: 'unet', 'superres' or 'classifier'.
    flags: the reference's.
    assumed: what no shape says, one clause each, for the user to confirm.
  """
  kind: str
  flags: dict[str, Any]
  assumed: list[str]


def infer(shapes: Shapes, image_size: int | None = None, dialect: str = 'adm') -> Inferred:
  """Finds the flags whose network has exactly given tensors.

  Args:
    shapes: {published name: shape}.
    image_size: of the images it makes, where known. Most networks run at any size, and no shape
      tells which they are for; attention resolutions are counted from it.
    dialect: whose scripts made it (`flags.DIALECTS`): what is assumed are their defaults.

  Raises:
    UsageError: no network of the reference has them; with how the nearest differs.
  """
  for name in ('time_embed.0.weight', 'input_blocks.0.0.weight'):
    if name not in shapes:
      raise UsageError(f'there is no {name}: this is not a network of openai/guided-diffusion')
  try:
    return _fitting(shapes, image_size, dialect)
  except UsageError:
    raise
  # Of names without their numbers, absent tensors, and shapes of too few or empty axes.
  except (ValueError, LookupError, ArithmeticError) as error:
    raise UsageError('its tensors have names or shapes that no network of openai/guided-diffusion '
                     f'has ({type(error).__name__}: {one_line(error, 60)})') from error


def _fitting(shapes: Shapes, image_size: int | None, dialect: str) -> Inferred:
  has_decoder = any(name.startswith('output_blocks.') for name in shapes)
  in_channels = shapes['input_blocks.0.0.weight'][1]
  # Six channels are a small image's beside the large one's; any other number is the image's own.
  kind = 'classifier' if not has_decoder else 'superres' if in_channels == 6 else 'unet'

  mistake = None
  for depth in range(1, 9):
    levels = (_num_blocks(shapes) + 1) / (depth + 1)
    if levels != int(levels) or not _levels_agree(shapes, depth):
      continue
    found = _flags(shapes, kind, depth, int(levels), image_size, dialect)
    try:
      module, _ = create(found.kind, found.flags)
      openai.check_shapes(shapes, module)
      return found
    except UsageError as error:
      mistake = mistake or error
  raise mistake or UsageError('its blocks form no regular levels: give --flags')


def _num_blocks(shapes: Shapes) -> int:
  """The index of the last descending block; blocks without parameters count too."""
  return max(int(name.split('.')[1]) for name in shapes if name.startswith('input_blocks.'))


def _width(shapes: Shapes, block: int) -> int | None:
  """Channels after a descending ResBlock, or None if the block is not one."""
  shape = shapes.get(f'input_blocks.{block}.0.out_layers.3.weight')
  return None if shape is None else shape[0]


def _levels_agree(shapes: Shapes, depth: int) -> bool:
  """Whether every level is `depth` ResBlocks of one width and a step down without attention."""
  for block in range(1, _num_blocks(shapes) + 1):
    place = (block - 1) % (depth + 1)
    if place < depth and _width(shapes, block) is None:
      return False
    if 0 < place < depth and _width(shapes, block) != _width(shapes, block - 1):
      return False
    if place == depth and (f'input_blocks.{block}.1.qkv.weight' in shapes
                           or f'input_blocks.{block}.0.skip_connection.weight' in shapes):
      return False
  return True


def _flags(shapes: Shapes, kind: str, depth: int, levels: int,
           size: int | None, dialect: str) -> Inferred:
  channels = shapes['time_embed.0.weight'][1]
  image_channels = shapes['input_blocks.0.0.weight'][1] // (2 if kind == 'superres' else 1)
  firsts = [1 + level * (depth + 1) for level in range(levels)]
  widths = [_width(shapes, block) for block in firsts]
  mults = tuple(width / channels for width in widths)
  attended = [level for level, block in enumerate(firsts)
              if f'input_blocks.{block}.1.qkv.weight' in shapes]
  scale_shift = (shapes['input_blocks.1.0.emb_layers.1.weight'][0] == 2 * widths[0])
  # Where there is one level only, nothing says how it would be resampled.
  updown = levels == 1 or _width(shapes, depth + 1) is not None

  assumed = ['noise_schedule linear', 'diffusion_steps 1000']
  if kind == 'classifier' and 'out.2.positional_embedding' in shapes:
    side = math.isqrt(shapes['out.2.positional_embedding'][1] - 1)
    size = side << (levels - 1)
  elif size is None:
    known = [size for size, table in CHANNEL_MULT.items() if table == mults]
    size = known[0] if known else 8 << (levels - 1)
    assumed.append(f'image size {size} (the network runs at any)')
  resolutions = ','.join(str(size >> level) for level in attended)
  flags = {'channel_mult': ','.join(f'{mult:g}' for mult in mults)}
  if image_channels != 3:
    flags['image_channels'] = image_channels
  if kind == 'classifier':
    flags |= {
        'image_size': size, 'classifier_width': channels, 'classifier_depth': depth,
        'classifier_attention_resolutions': resolutions, 'classifier_pool': _pool(shapes),
        'classifier_use_scale_shift_norm': scale_shift, 'classifier_resblock_updown': updown,
        'num_classes': _num_logits(shapes)}
    assumed.append('attention heads of 64 channels')
    return Inferred(kind, flags, assumed)

  flags |= {
      'num_channels': channels, 'num_res_blocks': depth, 'attention_resolutions': resolutions,
      'use_scale_shift_norm': scale_shift, 'resblock_updown': updown,
      'learn_sigma': shapes['out.2.weight'][0] == 2 * image_channels,
      'class_cond': 'label_emb.weight' in shapes}
  if flags['class_cond']:
    flags['num_classes'] = shapes['label_emb.weight'][0]
  if kind == 'superres':
    flags |= {'large_size': size, 'small_size': size // 4}
    assumed.append(f'small_size {size // 4}')
  else:
    flags['image_size'] = size
  if dialect == 'adm' and all(widths[level] % 64 == 0 for level in (*attended, -1)):
    flags['num_head_channels'] = 64
    assumed.append('attention heads of 64 channels (num_head_channels 64)')
  else:
    assumed.append('4 attention heads (num_heads 4)')
  if dialect == 'adm':  # improved-diffusion has no other
    assumed.append('the old order of attention channels (use_new_attention_order False)')
  return Inferred(kind, flags, assumed)


def _pool(shapes: Shapes) -> str:
  if 'out.2.positional_embedding' in shapes:
    return 'attention'
  if len(shapes.get('out.3.weight', ())) == 4:
    return 'adaptive'
  return 'spatial_v2' if 'out.3.weight' in shapes else 'spatial'


def _num_logits(shapes: Shapes) -> int:
  last = {'attention': 'out.2.c_proj.weight', 'spatial': 'out.2.weight'}
  return shapes[last.get(_pool(shapes), 'out.3.weight')][0]
