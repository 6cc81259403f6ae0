"""Convert weights between PyTorch's .pt (or .safetensors) files and this project's folders.

Reads .pt files without PyTorch. What --to writes keeps its config and the names of its classes, and
comes back as it was. Of other files, what the shapes of the weights do not say, the order of
attention channels, the number of heads, the noise schedule, is assumed, printed, and corrected by
--flags.

examples:
  adm convert imagenet256 --out weights/imagenet256       # a published model, by name
  adm convert 256x256_diffusion.pt --out weights/imagenet256
  adm convert 64x64_diffusion.pt --out weights/imagenet64 --flags "--use_new_attention_order True
    --noise_schedule cosine --dropout 0.1"
  adm convert my_iddpm.pt --out weights/mine --dialect iddpm --flags "--diffusion_steps 4000
    --noise_schedule cosine"                              # a file of improved-diffusion
  adm convert weights/imagenet256 --to 256x256_diffusion.pt
"""

import shlex

from adm_jax.cli.parser import local_path
from adm_jax.errors import UsageError


def add_arguments(parser):
  parser.add_argument('source', metavar='FILE|NAME|DIR',
                      help='what to convert: a file, a model of `adm models`, or a folder')
  parser.add_argument('--out', metavar='DIR', help='the folder to write, from a file')
  parser.add_argument('--to', metavar='FILE', help='the file to write, from a folder')
  parser.add_argument('--flags', default='', metavar='"--NAME VALUE ..."',
                      help="the reference's flags, where the inferred ones are wrong")
  parser.add_argument('--dialect', choices=('adm', 'iddpm'),
                      help="whose flags a file was made with: adm, guided-diffusion's, or iddpm, "
                           "improved-diffusion's, with other defaults; default: adm")
  parser.add_argument('--weights', metavar='WHICH',
                      help="with --to: 'params' or the rate of an average; default: the slowest")


def run(arguments, rest):
  if rest:
    raise UsageError(f'adm convert does not understand {" ".join(rest)}; see adm convert --help')
  if (arguments.out is None) == (arguments.to is None):
    raise UsageError('give either --out DIR, to read a file, or --to FILE, to write one')
  if arguments.out is not None:
    if arguments.weights is not None:
      raise UsageError('--weights is of --to; to read a file, name it itself: adm convert FILE '
                       '--out DIR')
    return _read(arguments.source, local_path('--out', arguments.out), arguments.flags,
                 arguments.dialect)
  for name in ('flags', 'dialect'):
    if getattr(arguments, name):
      raise UsageError(f'--{name} is of a file that is read: leave it out, or give --out DIR')
  return _write(arguments.source, local_path('--to', arguments.to), arguments.weights)


def _read(source, out, words, dialect):
  from adm_jax.io import progress
  from adm_jax.weights import folders, pretrained

  if out.exists():
    raise UsageError(f'{out} exists: give the name of a new folder')
  read = pretrained.read(source, words, progress.bar, dialect=dialect)
  folders.save(out, read.network_config, read.params, read.class_names)
  print(f'{out}: {read.kind}, {read.num_parameters:,} parameters')
  if read.flags is None:
    print('  its config came with it')
    return 0
  words = (word for name, value in read.flags.items() for word in (f'--{name}', str(value)))
  print(f'  flags: {shlex.join(words)}')
  for clause in read.assumed:
    print(f'  assumed (--flags corrects it): {clause}')
  return 0


def _write(source, target, weights):
  from adm_jax.weights import pretrained

  trained = pretrained.write(source, target, weights)
  print(f'{target}: {trained.weights} of step {trained.step}')
  return 0
