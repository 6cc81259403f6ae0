"""Export a guided sampler to StableHLO, which runs without the model's code, also on other devices.

OUT gets sampler.stablehlo, weights.safetensors and description.json; in Python,
adm_jax.sampling.exported.load(OUT)(seed, index, labels) gives uint8 images, in batches of any size.

example:
  adm export --model runs/demo/unet --classifier runs/demo/classifier --scale 2 --solver dpm++2m
    --steps 20 --platforms cpu,cuda,tpu --out exported
"""

import argparse
import pathlib

from adm_jax.cli import sampling_options
from adm_jax.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  sampling_options.add_model_arguments(parser)
  sampling_options.add_guidance_arguments(parser)
  sampling_options.add_step_arguments(parser)
  parser.add_argument('--platforms', default='cpu,cuda,tpu', metavar='LIST',
                      help='of cpu, cuda, rocm, tpu; default: cpu,cuda,tpu')
  parser.add_argument('--out', required=True, metavar='DIR', help='a new folder')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  if rest:
    raise UsageError(f'adm export does not understand {" ".join(rest)}; see adm export --help')
  if arguments.model is None:
    raise UsageError('say which model with --model NAME')
  sampling_options.fill_in_student(arguments)
  sampling_options.check(arguments)
  from adm_jax.sampling import export

  out, platforms = pathlib.Path(arguments.out), arguments.platforms.split(',')
  export.check(out, platforms)
  export.save(sampling_options.load(arguments), out, platforms)
  size = sum(path.stat().st_size for path in out.iterdir())
  print(f'{out}: {size / 1e6:.1f} MB, for {", ".join(platforms)}')
  return 0
