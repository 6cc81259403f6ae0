"""Processes whose devices hold one copy of the weights together: one leads, the others follow.

All of them run the same programs on the same batches in the same order. Which batches those are is
read off files, which two processes may see change at different moments: so the first process of the
mesh alone looks at them, and tells the others what comes next.
"""

import contextlib
from typing import Callable, Iterator

import jax
import numpy as np

from adm_jax.devices import sharding

Range = tuple[int, int]  # [begin, end)

NOTHING, _END = (0, 0), (-1, -1)


@contextlib.contextmanager
def leading(mesh: jax.sharding.Mesh) -> Iterator[Callable[[Range], None]]:
  """Gives tell(batch), which followers run next; in the end, they are told that it is over.

  Waiting for long, tell(NOTHING) once in a while: those who wait for a word do not wait forever.
  """
  if not mesh.is_multi_process:
    yield lambda batch: None
    return
  yield lambda batch: _told(mesh, batch)
  # Not if this fails: its process ends, which ends the others, that have no place to fail at.
  _told(mesh, _END)


def following(mesh: jax.sharding.Mesh) -> Iterator[Range]:
  """Yields the batches that the first process of the mesh tells, each to be run at once."""
  while (batch := _told(mesh, NOTHING)) != _END:
    if batch != NOTHING:
      yield batch


def _told(mesh: jax.sharding.Mesh, batch: Range) -> Range:
  """What the first process of the mesh gives, in all of them."""
  rows = np.tile(np.asarray(batch, np.int32), (len(mesh.local_devices), 1))
  placed = sharding.place_rows({'batch': rows}, mesh)['batch']
  begin, end = sharding.fetched(placed, mesh)[0].tolist()  # the rows of the first process are first
  return begin, end
