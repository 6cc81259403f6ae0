"""The exceptions that a user is meant to see, one line each."""


class UsageError(ValueError):
  """A mistake in what was asked for.

  Its message is one line that names the value, the rule and the way out. The commands print that
  line and exit with code 2; in Python it is an ordinary `ValueError`.
  """


class TrainingStopped(RuntimeError):
  """Training cannot go on; the message says why and what to do."""
