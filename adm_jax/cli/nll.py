"""Bits per dimension of images under a model: the variational bound, term by term.

Writes the terms by timestep, means over all images, in the reference's files: vb_terms.npz,
mse_terms.npz and xstart_mse_terms.npz (arr_0, from the noisiest step to the first).

examples:
  adm nll --model runs/demo/unet --data digits_unet --config.data.split=held_out
    --out runs/nll
  adm nll --model iddpm-imagenet64 --data imagenet/valid --num 1000 --out runs/nll
"""

from adm_jax.cli import parts, real_images
from adm_jax.cli.parser import at_least_one, check_seed, local_path
from adm_jax.errors import UsageError
from adm_jax.io import progress


def add_arguments(parser):
  parser.add_argument('--model', required=True, metavar='NAME|DIR|FILE',
                      help='one of adm models, a work directory, converted weights, a .pt file')
  parser.add_argument('--config', metavar='FILE.py',
                      help='of a network of your own: the config that it was trained with')
  parser.add_argument('--weights', metavar='PATH|WHICH', help='see adm sample')
  parser.add_argument('--data', required=True, metavar='CONFIG|DIR|ZIP|FILE.npz',
                      help='a config, whose data is taken; a folder of images; or an .npz')
  parser.add_argument('--labels', default='folders', metavar='folders|prefix|FILE',
                      help="where a class-conditional model's labels come from; default: folders")
  parser.add_argument('--num', type=int, metavar='N', help='only the first N images')
  parser.add_argument('--respacing', default='', metavar='SPEC',
                      help="default: all of the process's steps")
  parser.add_argument('--batch-size', type=int, default=16, metavar='B', help='default: 16')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'),
                      help='of the network; default: bfloat16 on accelerators, float32 on CPUs')
  parser.add_argument('--seed', type=int, default=0, help='of the noise')
  parser.add_argument('--out', required=True, metavar='DIR', help='a new folder')
  parts.add_shared_argument(parser)


def run(arguments, overrides):
  import numpy as np

  from adm_jax import config as config_lib
  from adm_jax.data.loading import in_order
  from adm_jax.devices import compilation_cache
  from adm_jax.evaluation import nll
  from adm_jax.io import npz
  from adm_jax.networks import check_source
  from adm_jax.process.diffusion import respaced
  from adm_jax.sampling import pipeline
  from adm_jax.weights import folders, pretrained

  out = local_path('--out', arguments.out)
  if out.exists():
    raise UsageError(f'{out} exists: give the name of a new folder')
  at_least_one(arguments, 'num', 'batch_size')
  check_seed(arguments)
  part = parts.part(arguments)
  cache = compilation_cache.use()
  trained = (pretrained.load(arguments.model, arguments.weights) if arguments.config is None
             else folders.load(arguments.model, weights=arguments.weights,
                               config=config_lib.load(arguments.config)))
  dtype = arguments.dtype or pipeline.default_dtype()
  network = trained.network.having(dtype=dtype)
  if network.classifies or network.low_res_shape is not None:
    raise UsageError(f'{arguments.model} is no plain diffusion model: give one that makes images')
  process = respaced(network.diffusion, arguments.respacing)
  conditional = network.num_classes is not None
  labels = arguments.labels if conditional else None
  source = real_images.source('adm nll', arguments.data, overrides, network.image_shape, labels)
  check_source(network, source)
  num = min(arguments.num or len(source), len(source))

  batch_size = min(arguments.batch_size, num)

  def read(only):
    for batch in in_order(source, batch_size=batch_size, only=only):
      yield nll.Batch(batch['image'], batch['label'] if conditional else None, batch['index'])
  words = [arguments.model, dtype, source.name, num, batch_size, arguments.seed,
           arguments.respacing]
  bar = progress.bar if part.first else progress.no_bar
  with parts.meeting(arguments, part, words) as meeting, bar(num, 'bits per dimension') as advance:
    terms = nll.measure(
        network, process, trained.params, read, num=num, batch_size=batch_size,
        seed=arguments.seed, advance=lambda count: advance(count * part.count), meeting=meeting)
  if terms is None:
    return 0
  print(f'{arguments.model} ({trained.weights}, step {trained.step}) on {terms.count:,} images of '
        f'{source.name}, {process.schedule.num_steps} steps, {dtype}')
  error = '' if terms.error is None else f' +- {terms.error:.2g}'
  print(f'bits per dimension: {terms.total:.4f}{error}')
  print(f'  prior: {terms.prior:.4g}')
  # From the least noisy quarter on, as the training metrics count them.
  for quarter, part in enumerate(np.array_split(terms.vb[::-1], min(4, len(terms.vb)))):
    print(f'  quarter {quarter} of the timesteps: {part.sum():.4g}')
  out.mkdir(parents=True)
  for name, values in (('vb', terms.vb), ('mse', terms.eps_mse), ('xstart_mse', terms.x0_mse)):
    npz.write(out / f'{name}_terms.npz', {'arr_0': values})
  print(f'terms: {out}\ncompiled programs are kept in {cache}')
  return 0
