"""List the published models: parameters, size, the paper's row, and which are already here.

`adm models NAME` shows all of one: the card of a model that comes with the package; of a published
one its flags, and its largest arrays of parameters. Nothing is fetched.
`adm convert NAME --out DIR` fetches and converts one. ADM_CACHE moves the folder of downloads.
"""

import argparse

from adm_jax.errors import UsageError
from adm_jax.io import cache

_LARGEST = 10  # arrays of a model that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('name', nargs='?', help='show all of one model')
  parser.add_argument('--all-arrays', action='store_true',
                      help='of the model, not the largest only')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  from adm_jax.weights import catalog, shipped

  if rest:
    raise UsageError(f'adm models does not understand {" ".join(rest)}; see adm models --help')
  if arguments.name in shipped.names():
    if arguments.all_arrays:
      raise UsageError(f'--all-arrays is of a published model, and {arguments.name} comes with the '
                       'package: leave it out')
    print(shipped.card(arguments.name))
    return 0
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
    print(_arrays(model.name, None if arguments.all_arrays else _LARGEST))
    return 0
  if arguments.all_arrays:
    raise UsageError('--all-arrays is of one model: give its name, as adm models imagenet64')
  for name in shipped.names():
    print(f'{name:<26}comes with the package: {shipped.card(name).splitlines()[0].lstrip("# ")}')
  print(f'{"name":<26}{"kind":<12}{"parameters":>12}{"float32":>10}{"bfloat16":>10}  paper')
  for model in catalog.MODELS.values():
    gib = model.least_bytes / 2**30
    print(f'{model.name:<26}{model.kind:<12}{model.parameters:>12,}{gib:>6.2f} GiB'
          f'{gib / 2:>6.2f} GiB  {model.paper}')
  print(f'\nlicense: {catalog.LICENSE}\ndownloads: {cache.folder()}')
  return 0


def _arrays(name: str, most: int | None) -> str:
  """A table of a model's arrays of parameters: the `most` largest, or all in their order."""
  import math

  import flax
  from clu import parameter_overview  # alone of clu's modules that we use, it needs no TensorFlow

  from adm_jax.weights import pretrained

  arrays = flax.traverse_util.flatten_dict(pretrained.outline(name).params, sep='/')
  shown = arrays
  if most is not None:
    largest = sorted(arrays, key=lambda path: math.prod(arrays[path].shape), reverse=True)[:most]
    shown = {path: arrays[path] for path in largest}
  table = parameter_overview.get_parameter_overview(shown, include_stats=False)
  # What clu adds up is of the rows shown.
  table = table.rpartition('\nTotal: ')[0]
  return f'{table}\n{len(shown)} of {len(arrays)} arrays'
