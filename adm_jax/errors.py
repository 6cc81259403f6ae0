"""The exceptions that a user is meant to see, one line each."""

import contextlib
import pathlib
from typing import Iterator

RESTART = 75  # the commands' exit code (EX_TEMPFAIL) on which a launcher is to start them again


class UsageError(ValueError):
  """A mistake in what was asked for.

  Its message is one line that names the value, the rule and the way out. The commands print that
  line and exit with code 2; in Python it is an ordinary `ValueError`. What the message quotes of
  files and servers cannot break the line: see `printable`.
  """

  def __str__(self) -> str:
    return printable(super().__str__())


class TrainingStopped(RuntimeError):
  """Training cannot go on; the message says why and what to do."""


class Restart(RuntimeError):
  """Training ended before its time, and the same command goes on.

  The commands exit with code `RESTART`.
  """


class Preempted(Restart):
  """The machine is taken away (SIGTERM); everything is saved."""


class PeerLost(Restart):
  """Another process of the run is gone."""


@contextlib.contextmanager
def of_file(path: str | pathlib.Path) -> Iterator[None]:
  """Puts a file's name before what turns out to be wrong with it, unless it is named already."""
  try:
    yield
  except UsageError as error:
    if str(path) in str(error):
      raise
    raise UsageError(f'{path}: {error}') from error


def printable(text: str, most: int = 2000) -> str:
  r"""Returns text that a terminal shows as it is, in one line.

  Names in files may hold characters that move a terminal's cursor, hide what follows, or end the
  line; they become escapes like \x1b. Of what is longer than `most`, the middle is left out.
  """
  text = text if len(text) <= most else f'{text[:most - 500]} ... {text[-500:]}'
  return ''.join(character if character.isprintable() else
                 character.encode('unicode_escape').decode() for character in text)


def one_line(error: object, most: int = 200) -> str:
  """Returns what an exception, or another value, says in one line of at most so many characters."""
  return ' '.join(str(error).split())[:most]
