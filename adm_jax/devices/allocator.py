"""The C library's allocator, told to keep the memory that programs on CPUs ask for again and again.

XLA allocates the temporary memory of a program at each of its runs, on threads of its own, and
frees it at the end. glibc gives blocks of such sizes back to the system at once, and from these
threads in any case; getting them again costs a fault for each 4 kB: a third of all time where a
training step takes a gigabyte.
"""

import ctypes
import os
import sys

# glibc's malloc.h, and as much as an int holds: larger blocks come and go as before.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_MOST = 2**31 - 1
_GROWTH = 64 << 20  # bytes by which the heap grows


def keep_memory() -> bool:
  """Has freed memory stay with the process; call it before JAX starts its threads.

  Returns:
    Whether that was possible: on Linux with glibc, where the environment does not say otherwise.
  """
  if sys.platform != 'linux' or any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES'
                                    for name in os.environ):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  # One heap for all threads: those of the others are too small for such blocks.
  return mallopt is not None and all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_THRESHOLD, _MOST),
                                      mallopt(_TRIM_THRESHOLD, _MOST), mallopt(_TOP_PAD, _GROWTH)])


def release() -> None:
  """Gives back what is free now: what compilers took would stay as well."""
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None
  if trim is not None:
    trim(0)
