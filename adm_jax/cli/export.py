"""Export a guided sampler to StableHLO, ONNX or a page, which run without the model's code.

OUT gets sampler.stablehlo, weights.safetensors and description.json; in Python,
adm_jax.sampling.exported.load(OUT)(seed, index, labels) gives uint8 images, in batches of any size.

With --to onnx OUT gets denoiser.onnx and steps.json: a student's network, or an unguided one, and
the steps of DDIM, whose loop is a line. With --to page OUT gets a page besides, which makes images
in a browser from any server of files, and onnxruntime-web, fetched once from npm (docs/onnx.md).

examples:
  adm export --model runs/demo/unet --classifier runs/demo/classifier --scale 2 --solver dpm++2m
    --steps 20 --platforms cpu,cuda,tpu --out exported
  adm export --to onnx --model runs/distilled/student --out exported
  adm export --to page --model runs/distilled/student --out site; python -m http.server -d site
"""

import argparse
import pathlib

from adm_jax.cli import sampling_options
from adm_jax.cli.parser import at_least_one, local_path
from adm_jax.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  sampling_options.add_model_arguments(parser)
  sampling_options.add_guidance_arguments(parser)
  sampling_options.add_step_arguments(parser)
  parser.add_argument('--to', choices=('stablehlo', 'onnx', 'page'), default='stablehlo',
                      help='default: stablehlo')
  parser.add_argument('--platforms', metavar='LIST',
                      help='of StableHLO: of cpu, cuda, rocm, tpu; default: cpu,cuda,tpu')
  parser.add_argument('--batch-size', type=int, metavar='B',
                      help='of ONNX: how many images at once; default: 1')
  parser.add_argument('--runtime', metavar='PATH',
                      help='of a page: a folder or npm tarball that has onnxruntime-web; default: '
                      'fetched')
  parser.add_argument('--out', required=True, metavar='DIR', help='a new folder')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  if rest:
    raise UsageError(f'adm export does not understand {" ".join(rest)}; see adm export --help')
  if arguments.model is None:
    raise UsageError('say which model with --model NAME')
  sampling_options.fill_in_solver(arguments)
  sampling_options.check(arguments)
  at_least_one(arguments, 'batch_size')
  _check_options(arguments)
  if arguments.to != 'stablehlo':
    return (_to_onnx if arguments.to == 'onnx' else _to_page)(arguments)
  from adm_jax.sampling import export

  out = local_path('--out', arguments.out)
  platforms = (arguments.platforms or 'cpu,cuda,tpu').split(',')
  export.check(out, platforms)
  export.save(sampling_options.load(arguments), out, platforms)
  print(f'{out}: {_megabytes(out):.1f} MB, for {", ".join(platforms)}')
  return 0


def _check_options(arguments: argparse.Namespace) -> None:
  """Raises UsageError where an option is of another format."""
  if arguments.platforms is not None and arguments.to != 'stablehlo':
    raise UsageError(f'--platforms are of StableHLO: leave it out, or --to {arguments.to}')
  if arguments.batch_size is not None and arguments.to != 'onnx':
    why = {'stablehlo': 'StableHLO takes batches of any size',
           'page': 'a page makes one image after another'}[arguments.to]
    raise UsageError(f'--batch-size is of --to onnx: {why}')
  if arguments.runtime is not None and arguments.to != 'page':
    raise UsageError('--runtime is of --to page: leave it out')


def _to_onnx(arguments: argparse.Namespace) -> int:
  from adm_jax.sampling import onnx_export

  out = local_path('--out', arguments.out)
  onnx_export.check(out)
  onnx_export.save(sampling_options.load(arguments), out, arguments.batch_size or 1)
  print(f'{out}: {_megabytes(out):.1f} MB of ONNX')
  return 0


def _to_page(arguments: argparse.Namespace) -> int:
  from adm_jax.io import progress
  from adm_jax.serving import static_page

  out = local_path('--out', arguments.out)
  runtime = arguments.runtime and pathlib.Path(arguments.runtime)
  files = static_page.check(out, runtime, progress.bar)
  static_page.save(sampling_options.load(arguments), out, files)
  print(f'{out}: a page of {_megabytes(out):.1f} MB; see it: python -m http.server -d {out}')
  return 0


def _megabytes(folder: pathlib.Path) -> float:
  return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6
