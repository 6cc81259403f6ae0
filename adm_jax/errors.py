"""The exceptions that a user is meant to see, one line each."""

RESTART = 75  # the commands' exit code (EX_TEMPFAIL) on which a launcher is to start them again


class UsageError(ValueError):
  """A mistake in what was asked for.

  Its message is one line that names the value, the rule and the way out. The commands print that
  line and exit with code 2; in Python it is an ordinary `ValueError`.
  """


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


def one_line(error: BaseException, most: int = 200) -> str:
  """Returns what an exception says, in one line of at most so many characters."""
  return ' '.join(str(error).split())[:most]
