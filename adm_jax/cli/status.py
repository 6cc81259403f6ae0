"""How far a sampling job is, on all processes: images, rate, time to go, who was last seen when.

OUT is the folder of adm sample, or of adm reproduce or adm sweep, whose jobs lie below; a bucket's
will do. It is only read.

examples:
  adm status runs/imagenet256
  adm status gs://BUCKET/paper
  adm status runs/imagenet256 --check
"""

import argparse

from adm_jax.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('out', metavar='OUT')
  parser.add_argument('--check', action='store_true',
                      help='also read all images, and compare them with their checksums; ends with '
                           '1 if some are damaged')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  from adm_jax.sampling import status

  if rest:
    raise UsageError(f'adm status does not understand {" ".join(rest)}; see adm status --help')
  damaged = False
  for found in status.of_folder(arguments.out):
    print(found.text())
    if arguments.check:
      lines = found.job.damaged()
      damaged |= bool(lines)
      print(*(lines or ['  all that is there is as it was written']), sep='\n')
  return int(damaged)
