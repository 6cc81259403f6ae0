"""Command lines whose mistakes are one line."""

import argparse
import pathlib

from adm_jax.errors import UsageError


class Parser(argparse.ArgumentParser):
  """An `ArgumentParser` that raises UsageError instead of printing its usage and leaving."""

  def error(self, message):
    raise UsageError(f'{message}; see {self.prog} --help')


def numbers(option: str, words: str, counts: tuple[int, ...], kind: type = float) -> list:
  """The numbers of a list '1,2.5', of which there must be one of `counts`."""
  try:
    found = [kind(word) for word in words.split(',')]
  except ValueError:
    found = []
  if len(found) not in counts:
    raise UsageError(f'{option} {words}: give {" or ".join(map(str, counts))} '
                     f'{"whole " if kind is int else ""}numbers, with commas')
  return found


def at_least_one(arguments, *names: str) -> None:
  """Raises UsageError if one of these options is given and less than 1."""
  for name in names:
    value = getattr(arguments, name)
    if value is not None and value < 1:
      raise UsageError(f'--{name.replace("_", "-")} {value}: give at least 1')


def add_profile_argument(parser, what: str) -> None:
  parser.add_argument('--profile', metavar='START:COUNT',
                      help=f'trace COUNT {what} after the first START of this command, the first '
                           'of which compiles, for XProf and Perfetto; prints where')


def steps_to_profile(arguments) -> tuple[int, int]:
  """(START, COUNT) of --profile; (0, 0) where it is not given."""
  words = arguments.profile
  if words is None:
    return 0, 0
  found = words.split(':')
  if len(found) != 2 or not all(word.isascii() and word.isdigit() for word in found):
    raise UsageError(f'--profile {words}: give START:COUNT, two whole numbers, as 10:5')
  start, count = map(int, found)
  if count < 1:
    raise UsageError(f'--profile {words}: COUNT is how many are traced: give at least 1')
  return start, count


def check_seed(arguments) -> None:
  """Raises UsageError unless --seed can be one."""
  if not 0 <= arguments.seed < 2**32:
    raise UsageError(f'--seed {arguments.seed}: give 0 to {2**32 - 1}')


def local_path(option: str, words: str) -> pathlib.Path:
  """The path that an option of a command that writes to no bucket names.

  Raises:
    UsageError: an address, of which a path would make a folder called 'gs:'.
  """
  if '://' in words:
    raise UsageError(f'{option} {words}: this command writes to this machine only: name a folder '
                     'here')
  return pathlib.Path(words)


def check_empty(arguments: argparse.Namespace) -> None:
  """Raises UsageError if an option is given no text, as by a shell's empty variable.

  A path '' would be the current folder.
  """
  for name, value in vars(arguments).items():
    # Of these, no text means something: all steps, no flags.
    if value == '' and name not in ('respacing', 'upsample_respacing', 'flags'):
      raise UsageError(f'--{name.replace("_", "-")} is empty: give it a value, or leave it out')
