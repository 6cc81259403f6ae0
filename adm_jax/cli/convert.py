"""Convert weights between PyTorch's .pt (or .safetensors) files and this project's folders.

Reads .pt files without PyTorch. What the shapes of the weights do not say, the order of attention
channels, the number of heads, the noise schedule, is assumed, printed, and corrected by --flags.

examples:
  adm convert imagenet256 --out weights/imagenet256       # a published model, by name
  adm convert 256x256_diffusion.pt --out weights/imagenet256
  adm convert 64x64_diffusion.pt --out weights/imagenet64 --flags "--use_new_attention_order True
    --noise_schedule cosine --dropout 0.1"
  adm convert weights/imagenet256 --to 256x256_diffusion.pt
"""

import pathlib

from adm_jax.errors import UsageError


def add_arguments(parser):
  parser.add_argument('source', metavar='FILE|NAME|DIR',
                      help='what to convert: a file, a model of `adm models`, or a folder')
  parser.add_argument('--out', metavar='DIR', help='the folder to write, from a file')
  parser.add_argument('--to', metavar='FILE', help='the file to write, from a folder')
  parser.add_argument('--flags', default='', metavar='"--NAME VALUE ..."',
                      help="the reference's flags, where the inferred ones are wrong")
  parser.add_argument('--weights', metavar='WHICH',
                      help="with --to: 'params' or the rate of an average; default: the slowest")


def run(arguments, rest):
  if rest:
    raise UsageError(f'adm convert does not understand {" ".join(rest)}; see adm convert --help')
  if (arguments.out is None) == (arguments.to is None):
    raise UsageError('give either --out DIR, to read a file, or --to FILE, to write one')
  if arguments.out is not None:
    return _read(pathlib.Path(arguments.source), pathlib.Path(arguments.out), arguments.flags)
  return _write(pathlib.Path(arguments.source), pathlib.Path(arguments.to), arguments.weights)


def _read(source, out, words):
  from adm_jax import config as config_lib
  from adm_jax import downloads, zoo
  from adm_jax.cli import progress
  from adm_jax.compat import flags, openai, state_dicts
  from adm_jax.training import checkpoints

  if out.exists():
    raise UsageError(f'{out} exists: give the name of a new folder')
  given = flags.words(words)
  assumed = []
  if source.suffix or source.exists():
    state_dict = state_dicts.read(source)
    kind, known, assumed = _inferred(state_dict, given)
  else:
    model = zoo.find(str(source))
    state_dict = state_dicts.read(downloads.fetch_model(model, progress.bar))
    kind, known = model.kind, flags.words(model.flags)
  task_config = flags.describe(kind, known | given)
  params = openai.params_from_state_dict(state_dict, config_lib.build(task_config).model)
  checkpoints.save_weights(out, task_config, params)
  count = sum(array.size for array in state_dict.values())
  print(f'{out}: {kind}, {count:,} parameters')
  print('  flags: ' + ' '.join(f'--{name} {value}' for name, value in (known | given).items()))
  for clause in assumed:
    print(f'  assumed, unless --flags said otherwise: {clause}')
  return 0


def _inferred(state_dict, given):
  from adm_jax.compat import flags
  from adm_jax.compat.infer import infer

  size = given.get('large_size', given.get('image_size'))
  shapes = {name: array.shape for name, array in state_dict.items()}
  return infer(shapes, None if size is None else flags.read_size(size))


def _write(source, target, weights):
  from adm_jax.compat import openai, state_dicts
  from adm_jax.training import checkpoints

  if target.exists():
    raise UsageError(f'{target} exists: give the name of a new file')
  trained = checkpoints.load(source, weights=weights)
  state_dicts.write(target, openai.state_dict_from_params(trained.params, trained.task.model))
  print(f'{target}: {trained.weights} of step {trained.step}')
  return 0
