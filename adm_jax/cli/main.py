"""`adm`: finds the command, and turns a user's mistake into one line."""

import argparse
import os
import sys

# Before the commands, whose imports take time: it looks at the clock.
from adm_jax.cli import first_images  # noqa: F401

# isort: split
import adm_jax
from adm_jax.cli import (
  config,
  convert,
  demo,
  distill,
  evaluate,
  export,
  models,
  nll,
  plan,
  prepare,
  reference,
  reproduce,
  sample,
  serve,
  status,
  sweep,
  train,
)
from adm_jax.cli.parser import Parser, check_empty
from adm_jax.devices import allocator
from adm_jax.errors import RESTART, Restart, TrainingStopped, UsageError, printable

COMMANDS = {'demo': demo, 'train': train, 'distill': distill, 'config': config, 'sample': sample,
            'status': status, 'serve': serve, 'evaluate': evaluate, 'reference': reference,
            'nll': nll, 'sweep': sweep, 'reproduce': reproduce, 'convert': convert,
            'export': export, 'models': models, 'plan': plan, 'prepare': prepare}


def main(arguments: list[str] | None = None) -> int:
  """Runs `adm ARGUMENTS`; returns the exit code: 2 after a mistake in what was asked for."""
  parser = Parser(prog='adm', description='ADM in JAX: train, guide, sample.')
  parser.add_argument('--version', action='version', version=f'adm {adm_jax.__version__}')
  commands = parser.add_subparsers(dest='command', metavar='COMMAND')
  for name, module in COMMANDS.items():
    summary = module.__doc__.strip().splitlines()[0]
    module.add_arguments(commands.add_parser(
        name, help=summary, description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter))
  try:
    known, rest = parser.parse_known_args(arguments)
    check_empty(known)
    if known.command is None:
      if rest:
        parser.error(f'there is no command before {" ".join(rest)}: give one of '
                     f'{", ".join(COMMANDS)}')
      parser.print_help()
      return 0
    allocator.keep_memory()
    code = COMMANDS[known.command].run(known, rest) or 0
    sys.stdout.flush()  # here, its errors are seen
    return code
  except UsageError as error:
    _complain(error)
    return 2
  except BrokenPipeError:  # whoever read the output, like head, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except OSError as error:
    _complain(f'{error.strerror or error}: {error.filename or _unnamed()}')
    return 2
  except (TrainingStopped, Restart) as error:
    _complain(error)
    sys.stdout.flush()
    # Not a return: at its end Python would wait for the threads of a save that hangs, and JAX for
    # processes that are gone.
    os._exit(RESTART if isinstance(error, Restart) else 1)
  except KeyboardInterrupt:
    goes_on = ('; the same command goes on from what is saved'
               if getattr(COMMANDS[known.command], 'RESUMES', False) else '')
    print(f'\nadm: interrupted{goes_on}', file=sys.stderr, flush=True)
    sys.stdout.flush()
    # Not a return: a compiler thread that outlives the interpreter ends in a crash.
    os._exit(130)


def _complain(mistake: object) -> None:
  """Prints one line, whatever names of files and answers of servers it quotes."""
  print(f'adm: {printable(str(mistake))}', file=sys.stderr, flush=True)


def _unnamed() -> str:
  """What an error is about that names no file: what is printed, if more of it fails as well."""
  try:
    print(flush=True)
  except OSError:
    # Or Python would try once more at its end, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 'standard output'
  return '(no file named)'


if __name__ == '__main__':
  sys.exit(main())
