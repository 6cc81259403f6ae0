"""Silences the threads of a save that fails: whoever waits for it is told by an exception."""

import functools
import logging
import sys


@functools.cache
def quiet_saves() -> None:
  """From now on, in this process; Orbax and the libraries under it print a traceback an array."""
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  logging.getLogger('absl').addFilter(_is_news)
  before = sys.unraisablehook

  def hook(unraisable):
    if not _is_late(unraisable.exc_value):
      before(unraisable)
  sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
  return record.exc_info is None or '/orbax/' not in record.pathname.replace('\\', '/')


def _is_late(error: BaseException | None) -> bool:
  """Whether an array reports to a save that has ended with the failure of another one.

  TensorStore calls from threads of its own, where what Python raises reaches nobody.
  """
  return isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
