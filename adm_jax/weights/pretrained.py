"""Weights by name or path: a published model, a file of PyTorch's, or a folder of this project."""

import dataclasses
import json
import pathlib
from typing import Any, Callable, NamedTuple

import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.config import ConfigDict
from adm_jax.errors import UsageError, of_file
from adm_jax.io import digests, files, progress
from adm_jax.weights import catalog, flags, folders, openai, shipped, state_dicts
from adm_jax.weights.folders import Trained
from adm_jax.weights.infer import infer

# The notes of a file that `write` makes.
_CONFIG, _CLASSES = 'adm_jax.config', 'adm_jax.classes'


class Pretrained(NamedTuple):
  """Weights of the reference's format, and what they are weights of.

  Attributes:
    kind: 'unet', 'superres' or 'classifier'.
    flags: the reference's; None where the config came with the weights (`write`).
    assumed: what the file does not say and `flags` assume, one clause each.
    network_config: the config of the `networks.Network` that the flags mean.
    params: our parameter tree, of `LazyArray` arrays: each is read when it is asked for.
    num_parameters: how many values it holds.
    class_names: in the order of the labels; None where unknown.
  """
  kind: str
  flags: dict[str, Any] | None
  assumed: list[str]
  network_config: ConfigDict
  params: Any
  num_parameters: int
  class_names: tuple[str, ...] | None = None


def load(name: str | pathlib.Path, weights: str | pathlib.Path | None = None,
         bar: Callable = progress.bar) -> Trained:
  """A network with its weights and its process.

  Args:
    name: a model that comes with the package (`weights.shipped`), a published one
      (`weights.catalog`), a work directory, a folder of converted weights, or a .pt or .safetensors
      file, whose flags are then inferred.
    weights: for a published model, its file, if it is already here; for a folder, which weights
      (`folders.load`).
    bar: shows the progress of a download, see `progress.bar`.

  Raises:
    UsageError: none of these; or weights that do not fit, cannot be fetched or are not whole.
  """
  if str(name) in shipped.names():
    shipped.check(shipped.folder(str(name)))
    found = folders.load(shipped.folder(str(name)), weights=weights and str(weights))
    # They are stored in 16 bits, and compute as they were trained.
    return dataclasses.replace(found, params=jax.tree.map(np.float32, found.params))
  if str(name) not in catalog.MODELS and files.folder(name).is_dir():
    return folders.load(name, weights=None if weights is None else str(weights))
  found = read(name, weights=weights, bar=bar)
  return Trained(config_lib.build(found.network_config), jax.tree.map(np.asarray, found.params),
                 class_names=found.class_names)


def write(name: str | pathlib.Path, target: pathlib.Path, weights: str | None = None) -> Trained:
  """Writes a network's weights as the reference's state dict, which `read` turns back exactly.

  The config and the names of the classes travel as notes beside the tensors.

  Args:
    name: a model that comes with the package, a work directory or a folder of converted weights.
    target: a new .pt or .safetensors file.
    weights: of a work directory, which (`folders.load`).

  Returns:
    What was written.

  Raises:
    UsageError: no such folder, `target` exists, or a network that the reference does not know.
  """
  if target.exists():
    raise UsageError(f'{target} exists: give the name of a new file')
  if str(name) in shipped.names():
    folder, found = shipped.folder(str(name)), load(name, weights)
  else:
    folder = files.folder(name)
    found = folders.load(folder, weights=weights)
  notes = {_CONFIG: folders.network_text(folders.stored_network(folder))}
  if found.class_names is not None:
    notes[_CLASSES] = json.dumps(found.class_names, ensure_ascii=False)
  state_dicts.write(target, openai.lazy_state_dict(found.params, found.network.module), notes)
  return found


def trained(model: str | pathlib.Path | Trained,
            weights: str | pathlib.Path | None = None) -> Trained:
  """Returns what `load` does, of a name, or the network itself where that is given."""
  return model if isinstance(model, Trained) else load(model, weights)


def describe(model: str | pathlib.Path | Trained, found: Trained) -> dict[str, Any]:
  """Returns JSON values that tell a network's weights from others."""
  name = 'weights in memory' if isinstance(model, Trained) else str(model)
  return {'name': name, 'weights': found.weights, 'step': found.step,
          'fingerprint': fingerprint(found.params)}


def fingerprint(params: Any) -> str:
  """Tells sets of weights apart; looks at a few numbers of each array, so that it takes no time."""
  def parts():
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
      yield f'{jax.tree_util.keystr(path)}{leaf.shape}{leaf.dtype}'
      if not isinstance(leaf, jax.ShapeDtypeStruct):
        flat = np.asarray(leaf).reshape(-1)
        yield flat[::max(1, len(flat) // 64)].tobytes()
  return digests.short(parts())


def outline(name: str | pathlib.Path | Trained) -> Trained:
  """As `trained`, with shapes of the parameters in place of values it would read; fetches nothing.

  What is given as a network stays as it is.
  """
  if isinstance(name, Trained):
    return name
  if str(name) not in catalog.MODELS:
    found = load(name)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found.params)
    return dataclasses.replace(found, params=shapes)
  network = config_lib.build(network_config(name))
  return Trained(network, network.abstract_params())


def network_config(name: str | pathlib.Path) -> ConfigDict:
  """The config of the network that `load` would load; nothing is fetched.

  Raises:
    UsageError: there is none, or one that names functions of a user's own.
  """
  if str(name) in shipped.names():
    return folders.stored_network(shipped.folder(str(name)))
  if str(name) in catalog.MODELS:
    model = catalog.find(str(name))
    return flags.describe(model.kind, flags.words(model.flags))
  if files.folder(name).is_dir():
    return folders.stored_network(name)
  return read(name).network_config


def read(name: str | pathlib.Path, words: str = '', bar: Callable = progress.bar,
         weights: str | pathlib.Path | None = None, dialect: str | None = None) -> Pretrained:
  """A published model, or a file in its format; arguments as `load`.

  Args:
    words: the reference's flags, '--name value ...', where the known or inferred ones are wrong.
    dialect: of a file, whose flags these are, 'adm' or 'iddpm' (`flags.DIALECTS`); default: 'adm'.
  """
  given = flags.words(words)
  if str(name) in catalog.MODELS or not _is_path(name):
    model = catalog.find(str(name))
    if dialect is not None:
      raise UsageError(f'the flags of {name} are known: leave out --dialect {dialect}')
    file = catalog.fetch(model, bar) if weights is None else pathlib.Path(weights)
    state_dict, kind = state_dicts.read(file), model.kind
    known, assumed = flags.words(model.flags), []
  elif weights is not None:
    raise UsageError(f'{name} is a file of weights itself: leave out weights={weights}')
  elif not pathlib.Path(name).exists():
    raise UsageError(f'there is no folder or file {name}, and no published model of that name')
  elif pathlib.Path(name).is_dir():
    raise UsageError(f'{name} is a folder, not a file of weights')
  else:
    state_dict = state_dicts.read(pathlib.Path(name))
    notes = state_dicts.read_notes(pathlib.Path(name))
    if _CONFIG in notes:
      if words or dialect is not None:
        raise UsageError(f'{name} brings its own config: leave out '
                         f'{"--flags" if words else "--dialect"}')
      with of_file(name):
        return _noted(state_dict, notes)
    with of_file(name):
      kind, known, assumed = _inferred(state_dict, given, dialect or 'adm')
    assumed += _assumed_clock(kind, given, dialect)
    assumed = [clause for clause in assumed if not any(flag in clause for flag in given)]
  known, assumed = _without_what_is_given(known, assumed, given)
  if dialect == 'iddpm':
    _check_iddpm(kind, known | given)
    known = {name: str(value) for name, value in flags.DIALECTS[dialect].items()} | known
  _check_given(kind, known, given)
  network_config = flags.describe(kind, known | given, dialect or 'adm')
  with of_file(name):
    params = openai.lazy_params(state_dict, config_lib.build(network_config).module)
  return Pretrained(kind, known | given, assumed, network_config, params,
                    sum(tensor.size for tensor in state_dict.values()))


def _noted(state_dict: dict[str, Any], notes: dict[str, str]) -> Pretrained:
  """What a file of `write` holds."""
  config = stored_configs.network(notes[_CONFIG])
  module = folders.made(config)[0].module
  names = folders.class_names_of(notes[_CLASSES]) if _CLASSES in notes else None
  kind = {'UNet': 'unet', 'SuperRes': 'superres', 'Classifier': 'classifier'}
  return Pretrained(kind.get(type(module).__name__, 'network'), None, [], config,
                    openai.lazy_params(state_dict, module),
                    sum(tensor.size for tensor in state_dict.values()), names)


def _without_what_is_given(known, assumed, given):
  """Known flags, and what was assumed, without the width of heads where their number is given.

  In the reference a width, if there is one, wins over any number.
  """
  if given.get('num_head_channels', '-1') != '-1':
    return known, [clause for clause in assumed if 'num_heads' not in clause]
  numbers = {given.get(name, '-1') for name in ('num_heads', 'num_heads_upsample')}
  if numbers == {'-1'} and 'num_head_channels' not in given:
    return known, assumed
  assumed = [clause for clause in assumed if 'num_head_channels' not in clause]
  if 'num_heads' not in given and not any('num_heads' in clause for clause in assumed):
    assumed.append('4 attention heads (num_heads 4)')
  return {name: value for name, value in known.items() if name != 'num_head_channels'}, assumed


def _check_iddpm(kind, values):
  """Raises UsageError for what improved-diffusion does not have."""
  foreign = [name for name in ('num_head_channels', 'use_new_attention_order', 'resblock_updown')
             if str(values.get(name, False)) not in ('False', '-1')]
  if ',' not in str(values.get('channel_mult', ',')):  # of one level, which nothing resamples
    foreign = [name for name in foreign if name != 'resblock_updown']
  if kind == 'classifier' or foreign:
    what = 'classifiers' if kind == 'classifier' else f'{foreign[0]} {values[foreign[0]]}'
    raise UsageError(f'--dialect iddpm: improved-diffusion has no {what}: leave the dialect out')


def _check_given(kind, known, given):
  """Raises UsageError where a given flag contradicts what is known of the weights."""
  told, asked = (flags.seen_in_shapes(kind, values) for values in (known, known | given))
  for name in given:
    if name in known and told.get(name) != asked.get(name):
      raise UsageError(f'--{name} {given[name]} contradicts the weights, whose tensors do not fit '
                       f'the network unless it is {known[name] or "none"}: leave it out'
                       + ('' if 'attention' not in name else ', or give the --image_size that '
                          'its resolutions are counted from'))


def _is_path(name: str | pathlib.Path) -> bool:
  path = pathlib.Path(name)
  return bool(path.suffix) or path.exists() or len(path.parts) > 1


def _assumed_clock(kind, given, dialect):
  """What is assumed of the network's clock and its loss, one clause each, by the dialect."""
  if dialect == 'iddpm':
    return [f'{name} {value}, as improved-diffusion has it'
            for name, value in flags.DIALECTS[dialect].items()]
  steps = flags.parse(kind, {name: given[name] for name in ('diffusion_steps',) if name in given}
                      )['diffusion_steps']
  if steps == flags.DEFAULTS[kind]['diffusion_steps']:
    return []  # where both clocks show the same
  return [f'the network is told times from 0 to {steps - 1} (rescale_timesteps False): for a file '
          'of improved-diffusion, which rescales them to 0 to 1000, give --dialect iddpm']


def _inferred(state_dict, given, dialect):
  size = given.get('large_size', given.get('image_size'))
  shapes = {name: array.shape for name, array in state_dict.items()}
  return infer(shapes, None if size is None else flags.read_size(size), dialect)
