"""The reference's command-line flags: their defaults, their rules, and the model that they mean."""

import shlex
from typing import Any, Mapping

from adm_jax import networks
from adm_jax.config import ConfigDict, build, call
from adm_jax.errors import UsageError
from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.process import diffusion, losses, schedules
from adm_jax.process.diffusion import Diffusion

_DIFFUSION = {
    'learn_sigma': False, 'diffusion_steps': 1000, 'noise_schedule': 'linear',
    'timestep_respacing': '', 'use_kl': False, 'predict_xstart': False,
    'rescale_timesteps': False, 'rescale_learned_sigmas': False, 'sigma_small': False}
_BLOCKS = {
    'num_channels': 128, 'num_res_blocks': 2, 'num_heads': 4, 'num_heads_upsample': -1,
    'num_head_channels': -1, 'attention_resolutions': '16,8', 'dropout': 0.0, 'class_cond': False,
    'use_checkpoint': False, 'use_scale_shift_norm': True, 'resblock_updown': False,
    'use_fp16': False}

# The flags of each kind of network with the reference's defaults; ours are `num_classes` and
# `image_channels`, where the reference has 1,000 and 3 and nothing else, and a super-resolution
# network's `channel_mult` and attention order.
_OURS = {'channel_mult': '', 'num_classes': 1000, 'image_channels': 3}
DEFAULTS = {
    'unet': {'image_size': 64, 'use_new_attention_order': False, **_OURS, **_BLOCKS, **_DIFFUSION},
    'superres': {'large_size': 256, 'small_size': 64, 'use_new_attention_order': False, **_OURS,
                 **_BLOCKS, **_DIFFUSION},
    'classifier': {
        'image_size': 64, 'classifier_use_fp16': False, 'classifier_width': 128,
        'classifier_depth': 2, 'classifier_attention_resolutions': '32,16,8',
        'classifier_use_scale_shift_norm': True, 'classifier_resblock_updown': True,
        'classifier_pool': 'attention', **_OURS, **_DIFFUSION},
}

# What '' means as channel_mult. The 32 is improved-diffusion's.
CHANNEL_MULT = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4),
                 64: (1, 2, 3, 4), 32: (1, 2, 2, 2)}
SUPERRES_CHANNEL_MULT = {512: (1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 64: (1, 2, 3, 4)}
_CLASSIFIER_HEAD_CHANNELS = 64  # no flag changes it


# Whose scripts the flags are of, and the defaults that differ there: adm is guided-diffusion, iddpm
# improved-diffusion. The latter has no flag for heads of a given width, nor another order of
# attention's channels.
DIALECTS: dict[str, dict[str, Any]] = {
    'adm': {}, 'iddpm': {'rescale_timesteps': True, 'rescale_learned_sigmas': True}}

# What changes the number or the shapes of a network's tensors, whatever the image's size.
_SHAPING = ('num_channels', 'num_res_blocks', 'class_cond', 'use_scale_shift_norm',
            'resblock_updown', 'learn_sigma', 'num_classes', 'image_channels', 'classifier_width',
            'classifier_depth', 'classifier_use_scale_shift_norm', 'classifier_resblock_updown',
            'classifier_pool')


def parse(kind: str, flags: str | Mapping[str, Any], dialect: str = 'adm') -> dict[str, Any]:
  """All flags of a kind: those given, as a mapping or as '--name value ...', and the defaults.

  Args:
    kind: see `describe`.
    flags: the same.
    dialect: a key of `DIALECTS`: whose defaults.

  Raises:
    UsageError: an unknown kind or dialect, an unknown flag, or a value that cannot be read.
  """
  if dialect not in DIALECTS:
    raise UsageError(f'dialect {dialect!r} is unknown: give {" or ".join(DIALECTS)}')
  if kind not in DEFAULTS:
    raise UsageError(f'kind {kind!r} is unknown: give {", ".join(DEFAULTS)}')
  given = words(flags) if isinstance(flags, str) else dict(flags)
  known = {name: DIALECTS[dialect].get(name, default) for name, default in DEFAULTS[kind].items()}
  # Flag lines are copied whole from the reference's README: what concerns only its scripts passes.
  unknown = [name for name in given if name not in known and name not in _every_flag()]
  if unknown:
    raise UsageError(f'--{unknown[0]} is no flag of the reference: known are {", ".join(known)}')
  return {name: _read(name, given.get(name, default), default) for name, default in known.items()}


def describe(kind: str, flags: str | Mapping[str, Any] = '', dialect: str = 'adm') -> ConfigDict:
  """Returns the config of the `networks.Network` that the flags mean.

  Args:
    kind: 'unet', 'superres' or 'classifier'.
    flags: the reference's, as a mapping or as its own string ('--image_size 64 --class_cond True').
      Any `image_size`; `channel_mult` may hold fractions; `num_classes` may be given.
    dialect: whose defaults hold, 'adm' or 'iddpm' (`DIALECTS`).
  """
  values = parse(kind, flags, dialect)
  process = _diffusion(values)
  if kind == 'classifier':
    return call(networks.classifier, module=_classifier(values), diffusion=process)
  if kind == 'unet':
    unet = _unet(values, values['image_size'], CHANNEL_MULT, values['image_channels'])
    return call(networks.unet, module=unet, diffusion=process)
  unet = _unet(values, values['large_size'], SUPERRES_CHANNEL_MULT, 2 * values['image_channels'])
  return call(networks.superres, module=call(SuperRes, unet=unet), diffusion=process,
              low_res_size=values['small_size'])


def objective(kind: str, flags: str | Mapping[str, Any] = '',
              dialect: str = 'adm') -> losses.Objective:
  """Returns what the flags train a network that makes images for; arguments as `describe`."""
  values = parse(kind, flags, dialect)
  return (losses.rescaled_kl if values['use_kl'] else
          losses.rescaled_mse if values['rescale_learned_sigmas'] else losses.mse)


def create(kind: str, flags: str | Mapping[str, Any] = '') -> tuple[Any, Diffusion]:
  """(linen module, the respaced process with its parameterization); arguments as `describe`."""
  network = build(describe(kind, flags))
  return network.module, network.diffusion


def seen_in_shapes(kind: str, flags: str | Mapping[str, Any]) -> dict[str, Any]:
  """Returns the flags that the shapes of a network's tensors tell, in a form to compare.

  Where two ways to write one thing mean the same network, as '16,8' and '8,16', they are equal.
  """
  values = parse(kind, flags)
  size = values['large_size' if kind == 'superres' else 'image_size']
  table = SUPERRES_CHANNEL_MULT if kind == 'superres' else CHANNEL_MULT
  channel_mult = _channel_mult(values, size, table)
  seen = {name: values[name] for name in _SHAPING if name in values}
  seen['channel_mult'] = channel_mult
  for name in ('attention_resolutions', 'classifier_attention_resolutions'):
    if name in values:
      attended = _attended(values[name], size, len(channel_mult))
      seen[name] = {size // resolution for resolution in attended}
  if len(channel_mult) == 1:  # nothing is resampled
    seen = {name: value for name, value in seen.items() if 'updown' not in name}
  if not values.get('class_cond', True):
    del seen['num_classes']
  return seen


def _classifier(values: Mapping[str, Any]) -> ConfigDict:
  size = values['image_size']
  channel_mult = _channel_mult(values, size, CHANNEL_MULT)
  return call(
      Classifier, image_size=size, num_classes=values['num_classes'],
      in_channels=values['image_channels'],
      channels=values['classifier_width'], channel_mult=channel_mult,
      depth=values['classifier_depth'],
      attention_resolutions=_attended(values['classifier_attention_resolutions'], size,
                                      len(channel_mult)),
      head_channels=_CLASSIFIER_HEAD_CHANNELS, pool=values['classifier_pool'],
      resblock_updown=values['classifier_resblock_updown'],
      scale_shift=values['classifier_use_scale_shift_norm'])


def _unet(values: Mapping[str, Any], size: int, multipliers: Mapping[int, tuple],
          in_channels: int) -> ConfigDict:
  channel_mult = _channel_mult(values, size, multipliers)
  def optional(name):
    return None if values[name] == -1 else values[name]
  return call(
      UNet, image_size=size, in_channels=in_channels,
      out_channels=values['image_channels'] * (2 if values['learn_sigma'] else 1),
      channels=values['num_channels'], channel_mult=channel_mult, depth=values['num_res_blocks'],
      attention_resolutions=_attended(values['attention_resolutions'], size, len(channel_mult)),
      num_heads=values['num_heads'], num_heads_upsample=optional('num_heads_upsample'),
      head_channels=optional('num_head_channels'), dropout=values['dropout'],
      num_classes=values['num_classes'] if values['class_cond'] else None,
      resblock_updown=values['resblock_updown'], scale_shift=values['use_scale_shift_norm'],
      qkv_first=values['use_new_attention_order'],
      remat='full' if values['use_checkpoint'] else 'none')


def _diffusion(values: Mapping[str, Any]) -> ConfigDict:
  named = {'linear': schedules.linear, 'cosine': schedules.cosine}
  if values['noise_schedule'] not in named:
    raise UsageError(f'noise_schedule {values["noise_schedule"]!r} is unknown: give linear or '
                     'cosine')
  schedule = call(named[values['noise_schedule']], num_steps=values['diffusion_steps'],
                  rescale_timesteps=values['rescale_timesteps'])
  fixed = diffusion.FixedSmall if values['sigma_small'] else diffusion.FixedLarge
  return call(
      Diffusion,
      schedule=call(schedules.respace, schedule=schedule, spec=values['timestep_respacing']),
      mean=call(diffusion.X0 if values['predict_xstart'] else diffusion.Eps),
      variance=call(diffusion.LearnedRange if values['learn_sigma'] else fixed))


def _channel_mult(values, size: int, table: Mapping[int, tuple]) -> tuple[float, ...]:
  given = values['channel_mult']
  if given != '':
    words = given.split(',') if isinstance(given, str) else given
    try:
      return tuple(int(number) if number == int(number) else number for number in map(float, words))
    except (ValueError, OverflowError) as error:  # of no numbers; of NaN and infinity
      raise UsageError(f'channel_mult {given}: give numbers like "1,2,3,4"') from error
  if size not in table:
    raise UsageError(f'image size {size} has no multipliers of its own (the reference knows '
                     f'{", ".join(map(str, table))}): give channel_mult, like "1,2,3,4"')
  return table[size]


def _attended(resolutions: Any, size: int, num_levels: int) -> tuple[int, ...]:
  """The sides at which the network attends, in the order of the resolutions that mean them.

  The reference attends where the image is `size // resolution` times smaller, rounded down, so that
  resolutions that do not divide the size mean larger ones, as 30 means 32 of 64 pixels. It ignores
  those that mean no level without a word.
  """
  # '' is ours, for none.
  words = filter(None, resolutions.split(',')) if isinstance(resolutions, str) else resolutions
  try:
    times = [size // int(word) for word in words]
  except (ValueError, ZeroDivisionError) as error:
    raise UsageError(f'attention resolutions {resolutions} are no whole numbers above 0: give some '
                     'like "32,16,8"') from error
  sides = {2 ** level: size >> level for level in range(num_levels)}
  return tuple(dict.fromkeys(sides[n] for n in times if n in sides))


def read_size(text: str) -> int:
  """The number that `--image_size` or `--large_size` gives."""
  return _read('image_size', text, 64)


def words(text: str) -> dict[str, str]:
  """{name: value} of a flag line, as text."""
  try:
    parts = shlex.split(text)
  except ValueError as error:  # of quotes
    raise UsageError(f'flags {text!r}: {error}') from error
  names, values = parts[::2], parts[1::2]
  if len(names) != len(values) or not all(name.startswith('--') for name in names):
    raise UsageError(f'flags are written "--name value ...", which {text!r} is not')
  return {name.removeprefix('--'): value for name, value in zip(names, values)}


def _read(name: str, value: Any, default: Any) -> Any:
  """`value` in the type of `default`; text as the reference's scripts read it."""
  if not isinstance(value, str) or isinstance(default, str):
    return value
  if isinstance(default, bool):
    truth = {'yes': True, 'true': True, 't': True, 'y': True, '1': True,
             'no': False, 'false': False, 'f': False, 'n': False, '0': False}
    if value.lower() in truth:
      return truth[value.lower()]
  else:
    try:
      return type(default)(value)
    except ValueError:
      pass
  raise UsageError(f'--{name} {value} is not a {type(default).__name__}')


def _every_flag() -> set[str]:
  """Flags of any kind, and those of the reference's scripts that say nothing of the network."""
  scripts = ('data_dir val_data_dir schedule_sampler lr weight_decay lr_anneal_steps anneal_lr '
             'batch_size microbatch ema_rate log_interval eval_interval save_interval iterations '
             'resume_checkpoint fp16_scale_growth noised clip_denoised num_samples use_ddim '
             'model_path classifier_path classifier_scale base_samples')
  return set(scripts.split()).union(*DEFAULTS.values())
