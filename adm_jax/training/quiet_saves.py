"""Silences the threads of a save that fails, and remembers why it did."""

import logging
import sys
import time

# Of Orbax, where threads catch what ends them.
_WORKERS = ('/orbax/checkpoint/_src/futures/future.py',
            '/orbax/checkpoint/_src/checkpointers/async_checkpointer.py')


class Failures(logging.Filter):
  """What has ended a thread of a save in this process; instead of a traceback an array in the log.

  Attributes:
    first: the first of them, or None.
    seconds: of `time.monotonic`, when that was.
  """

  def __init__(self):
    super().__init__()
    self.first, self.seconds = None, 0.0

  def filter(self, record: logging.LogRecord) -> bool:
    path = record.pathname.replace('\\', '/')
    if record.exc_info is None or '/orbax/' not in path:
      return True
    if self.first is None and path.endswith(_WORKERS):
      self.first, self.seconds = record.exc_info[1], time.monotonic()
    return False


def quiet_saves() -> Failures:
  """Silences them until this process ends: what fails is raised to whoever waits for the save."""
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  failures = Failures()
  logging.getLogger('absl').addFilter(failures)
  before = sys.unraisablehook

  def hook(unraisable):
    if not _is_late(unraisable.exc_value):
      before(unraisable)
  sys.unraisablehook = hook
  return failures


def _is_late(error: BaseException | None) -> bool:
  """Whether an array reports to a save that has ended with the failure of another one.

  TensorStore calls from threads of its own, where what Python raises reaches nobody.
  """
  return isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
