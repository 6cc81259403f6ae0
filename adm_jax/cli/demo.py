"""Train ADM on handwritten digits, sample them guided and unguided, and measure: minutes on a CPU.

First it draws guided images of a model that comes with the package, in OUT/fashion.png. Then it
writes samples.png (real, unguided and guided side by side), samples_*.npz, report.md, and the
trained networks. Needs no network; a second run reuses what is there. Beside the options below,
--unet.key=value and --classifier.key=value override what configs/digits_unet.py and
configs/digits_classifier.py say:

  adm demo --out runs/longer --unet.total_steps=4000 --unet.optimizer.linear_decay_steps=4000
"""

import argparse
import dataclasses

from adm_jax.cli.parser import local_path
from adm_jax.errors import UsageError
from adm_jax.io import progress

RESUMES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--out', default='runs/demo', metavar='DIR', help='default: runs/demo')
  parser.add_argument('--num', type=int, metavar='N', help='images per set')
  parser.add_argument('--scale', type=float, metavar='S', help="of the classifier's gradient")
  parser.add_argument('--respacing', metavar='SPEC', help='sampling steps: "100", "ddim50", ...')
  parser.add_argument('--seed', type=int, help='of the sampling noise')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  from adm_jax import demo
  from adm_jax.devices import compilation_cache

  unet = [word.replace('--unet.', '--config.', 1) for word in rest if word.startswith('--unet.')]
  classifier = [word.replace('--classifier.', '--config.', 1) for word in rest
                if word.startswith('--classifier.')]
  if len(unet) + len(classifier) < len(rest):
    raise UsageError('adm demo understands --unet.key=value and --classifier.key=value beside its '
                     f'own options, but not all of {" ".join(rest)}; see adm demo --help')
  given = {field.name: getattr(arguments, field.name) for field in
           dataclasses.fields(demo.Settings) if getattr(arguments, field.name, None) is not None}
  cache = compilation_cache.use()
  out = local_path('--out', arguments.out)
  text = demo.run(out, demo.Settings(**given), progress.bar, tuple(unet), tuple(classifier),
                  say=lambda line: print(line, flush=True))
  print(f'\n{text}\npicture: {out / "samples.png"}\nsamples: {out}/samples_*.npz\n'
        f'report:  {out / "report.md"}\ncompiled programs are kept in {cache}')
  return 0
