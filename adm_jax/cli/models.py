"""List the published models: parameters, size, the paper's row, and which are already here.

`adm convert NAME --out DIR` fetches and converts one. ADM_CACHE moves the folder of downloads.
"""

import argparse

from adm_jax.errors import UsageError
from adm_jax.io import cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('name', nargs='?', help='show all of one model')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  from adm_jax.weights import catalog

  if rest:
    raise UsageError(f'adm models does not understand {" ".join(rest)}; see adm models --help')
  if arguments.name is not None:
    model = catalog.find(arguments.name)
    for label, value in (
        ('name', model.name), ('kind', model.kind), ('flags', model.flags.strip()),
        ('address', model.address), ('parameters', f'{model.parameters:,}'),
        ('sha256', model.sha256 or 'not published'),
        ('classifier', model.classifier and f'{model.classifier}, scale {model.scale:g}'),
        ('respacing', model.respacing), ('paper', model.paper), ('license', catalog.LICENSE)):
      if value:
        print(f'{label:<12}{value}')
    return 0
  print(f'{"name":<26}{"kind":<12}{"parameters":>12}{"float32":>10}{"bfloat16":>10}  paper')
  for model in catalog.MODELS.values():
    gib = model.least_bytes / 2**30
    print(f'{model.name:<26}{model.kind:<12}{model.parameters:>12,}{gib:>6.2f} GiB'
          f'{gib / 2:>6.2f} GiB  {model.paper}')
  print(f'\nlicense: {catalog.LICENSE}\ndownloads: {cache.folder()}')
  return 0
