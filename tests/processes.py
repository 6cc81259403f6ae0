"""Processes that calculate together, as threads of this one."""

import threading

from adm_jax.io import meetings
from adm_jax.io.parts import Part


def together(folder, count, work, words=lambda index: 'same'):
  """What `work(meeting)` returns or raises in each of `count` processes."""
  results = [None] * count
  def one(index):
    try:
      with meetings.meeting(folder, Part(index, count), words(index)) as meeting:
        results[index] = work(meeting)
    except Exception as error:
      results[index] = error
  in_threads(one, count)
  return results


def in_threads(function, count):
  """Calls function(index) for each index below count, all at once."""
  threads = [threading.Thread(target=function, args=(index,), daemon=True)
             for index in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=120)
  assert not any(thread.is_alive() for thread in threads)
