"""How much memory a device has, and running out of it in one line."""

import contextlib
import os
from typing import Iterable, Iterator

import jax

from adm_jax.errors import UsageError


def of_device(device: jax.Device) -> int | None:
  """Returns the bytes that programs on a device may use; None where nothing says.

  CPU devices share the machine's memory: each may use all of it.
  """
  if device.platform == 'cpu':
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return (device.memory_stats() or {}).get('bytes_limit')


def of_each(devices: Iterable[jax.Device]) -> int | None:
  """Returns what `of_device` says of devices of one kind.

  One of this process is asked: JAX raises where it is to say something of another's.
  """
  own = [device for device in devices if device.process_index == jax.process_index()]
  return of_device(own[0]) if own else None


@contextlib.contextmanager
def enough(way_out: str) -> Iterator[None]:
  """Turns what XLA raises when memory ends into a UsageError that says the way out."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error) and 'Out of memory' not in str(error):
      raise
    raise UsageError(f'the memory of {jax.devices()[0].device_kind} does not suffice: {way_out}'
                     ) from error
