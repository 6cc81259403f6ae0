"""The one exception that means "the request was wrong", as opposed to "the program is"."""


class UsageError(ValueError):
  """A mistake in what was asked for.

  Its message is one line that names the value, the rule and the way out. The commands print that
  line and exit with code 2; in Python it is an ordinary `ValueError`.
  """
