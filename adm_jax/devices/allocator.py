"""The C library's allocator, told to keep the memory that programs on CPUs ask for again and again.

XLA allocates the temporary memory of a program at each of its runs, on threads of its own, and
frees it at the end. glibc gives blocks of such sizes back to the system at once, and from these
threads in any case; getting them again costs a fault for each 4 kB: a third of all time where a
training step takes a gigabyte. So one heap serves all threads, and keeps what is freed.

LLVM leaves that heap full of holes: 46,000 of a kilobyte or more after half a minute of compiling.
A program whose blocks are of such sizes has each of them searched for among these, under the
heap's one lock: a training step of the digits took a quarter longer in the process that compiled
it. So the holes are filled after each long compilation.
"""

import ctypes
import functools
import os
import sys
import threading

# glibc's malloc.h, and as much as an int holds: larger blocks come and go as before.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_MOST = 2**31 - 1
_GROWTH = 64 << 20  # bytes by which the heap grows

_COMPILED = '/jax/core/compile/backend_compile_duration'  # JAX's name for it
_LONG = 5.0  # seconds; what shorter compilations leave costs less than filling it

# In bytes, largest first. Smaller holes wait in a list for each size, where none is searched for.
_HOLES = [int(2**20 / 1.25**n) for n in range(32)]


@functools.cache
def keep_memory() -> bool:
  """Has freed memory stay with the process; call it before JAX starts its threads.

  Returns:
    Whether that was possible: on Linux with glibc, where the environment does not say otherwise.
  """
  if sys.platform != 'linux' or any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES'
                                    for name in os.environ):
    return False
  libc = ctypes.CDLL(None)
  if not all(hasattr(libc, name) for name in ('mallopt', 'malloc_trim')):
    return False
  # One heap for all threads: those of the others are too small for such blocks.
  return all([libc.mallopt(_ARENA_MAX, 1), libc.mallopt(_MMAP_THRESHOLD, _MOST),
              libc.mallopt(_TRIM_THRESHOLD, _MOST), libc.mallopt(_TOP_PAD, _GROWTH)])


@functools.cache
def fill_holes() -> bool:
  """Keeps memory, and has no long compilation leave holes in it; imports JAX.

  Returns:
    Whether that was possible: where `keep_memory` is.
  """
  if not keep_memory():
    return False
  import jax  # not above: the command line keeps memory before anyone needs JAX
  fill = _filler(ctypes.CDLL(None))

  def listen(event: str, seconds: float, **_):
    if event == _COMPILED and seconds > _LONG:
      fill()
  jax.monitoring.register_event_duration_secs_listener(listen)
  return True


def _filler(libc):
  """A function that gives back to the system what is free, and has nobody search it again."""
  libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
  libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
  filled, one_at_a_time = [], threading.Lock()  # several threads may compile

  def fill():
    with one_at_a_time:
      # What was filled before is filled anew, together with what was freed beside it since.
      for hole in filled:
        libc.free(hole)
      filled.clear()
      libc.malloc_trim(0)
      # No hole is as large, so that this is where the heap ends: what lies before it fills a hole.
      # None of this memory is touched, but for a few bytes that malloc writes at its beginning.
      end = libc.malloc(1 << 30)
      if end is None:
        return
      libc.free(end)
      for size in _HOLES:
        while (hole := libc.malloc(size)) is not None and hole < end:
          filled.append(hole)
        libc.free(hole)
      libc.malloc_trim(_GROWTH)  # the end lies where it lay before
  return fill
