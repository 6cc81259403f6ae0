"""Open a page to play with guidance: pick a class, drag the scale, see the image change.

It shows the models that come with the package, or one of yours, and makes what adm sample makes of
the same words. The page needs no network. Ctrl-C ends it.

examples:
  adm serve
  adm serve --model runs/demo/unet --classifier runs/demo/classifier
    --student runs/distilled/student
  adm serve --host 0.0.0.0 --port 8000       # for others too: the address has a token
"""

import argparse

from adm_jax.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--model', metavar='NAME|DIR',
                      help='one of adm models, a work directory or converted weights; default: '
                      'those that come with the package')
  parser.add_argument('--classifier', metavar='NAME|DIR', help='what guides it')
  parser.add_argument('--student', metavar='NAME|DIR', help='what was distilled from it')
  parser.add_argument('--host', default='127.0.0.1',
                      help='default: 127.0.0.1, which only this machine reaches')
  parser.add_argument('--port', type=int, default=8000, help='0 for any; default: 8000')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  if rest:
    raise UsageError(f'adm serve does not understand {" ".join(rest)}; see adm serve --help')
  if not 0 <= arguments.port < 2**16:
    raise UsageError(f'--port {arguments.port}: give 0 to {2**16 - 1}')
  try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
  except ImportError as error:
    from adm_jax.io import extras
    raise UsageError(f'the page needs {error.name}: {extras.command("serve")}') from error
  from adm_jax.devices import compilation_cache
  from adm_jax.serving import models, server

  bound = server.listen(arguments.host, arguments.port)
  with bound:
    compilation_cache.use()
    offered = models.offered(arguments.model, arguments.classifier, arguments.student)
    server.serve(offered, bound, arguments.host, say=_say)
  return 0


def _say(line: str) -> None:
  print(line, flush=True)
