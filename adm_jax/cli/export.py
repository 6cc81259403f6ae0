"""Export a guided sampler to StableHLO or ONNX, which run without the model's code, also elsewhere.

OUT gets sampler.stablehlo, weights.safetensors and description.json; in Python,
adm_jax.sampling.exported.load(OUT)(seed, index, labels) gives uint8 images, in batches of any size.

With --to onnx OUT gets denoiser.onnx and steps.json: a student's network, or an unguided one, and
the steps of DDIM, whose loop is a line (docs/onnx.md).

examples:
  adm export --model runs/demo/unet --classifier runs/demo/classifier --scale 2 --solver dpm++2m
    --steps 20 --platforms cpu,cuda,tpu --out exported
  adm export --to onnx --model runs/distilled/student --out exported
"""

import argparse
import pathlib

from adm_jax.cli import sampling_options
from adm_jax.cli.parser import at_least_one
from adm_jax.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  sampling_options.add_model_arguments(parser)
  sampling_options.add_guidance_arguments(parser)
  sampling_options.add_step_arguments(parser)
  parser.add_argument('--to', choices=('stablehlo', 'onnx'), default='stablehlo',
                      help='default: stablehlo')
  parser.add_argument('--platforms', metavar='LIST',
                      help='of StableHLO: of cpu, cuda, rocm, tpu; default: cpu,cuda,tpu')
  parser.add_argument('--batch-size', type=int, metavar='B',
                      help='of ONNX: how many images at once; default: 1')
  parser.add_argument('--out', required=True, metavar='DIR', help='a new folder')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  if rest:
    raise UsageError(f'adm export does not understand {" ".join(rest)}; see adm export --help')
  if arguments.model is None:
    raise UsageError('say which model with --model NAME')
  sampling_options.fill_in_student(arguments)
  sampling_options.check(arguments)
  at_least_one(arguments, 'batch_size')
  if arguments.to == 'onnx':
    if arguments.platforms is not None:
      raise UsageError('--platforms are of StableHLO: leave it out, or --to onnx')
    return _to_onnx(arguments)
  if arguments.batch_size is not None:
    raise UsageError('--batch-size is of --to onnx: StableHLO takes batches of any size')
  from adm_jax.sampling import export

  out, platforms = pathlib.Path(arguments.out), (arguments.platforms or 'cpu,cuda,tpu').split(',')
  export.check(out, platforms)
  export.save(sampling_options.load(arguments), out, platforms)
  print(f'{out}: {_megabytes(out):.1f} MB, for {", ".join(platforms)}')
  return 0


def _to_onnx(arguments: argparse.Namespace) -> int:
  from adm_jax.sampling import onnx_export

  out = pathlib.Path(arguments.out)
  onnx_export.check(out)
  onnx_export.save(sampling_options.load(arguments), out, arguments.batch_size or 1)
  print(f'{out}: {_megabytes(out):.1f} MB of ONNX')
  return 0


def _megabytes(folder: pathlib.Path) -> float:
  return sum(path.stat().st_size for path in folder.iterdir()) / 1e6
