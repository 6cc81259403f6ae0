"""Which images each of several processes makes: ranges of its own first, then what nobody is at.

A job is cut into batches on one grid, whoever makes them: so an image has the same place in the
same batch, and the same bytes, on any number of processes. Nothing but the job's folder tells
processes of each other.
"""

import logging
import time
from typing import Callable, Iterator, NamedTuple, Sequence

from adm_jax.io import heartbeats
from adm_jax.io.parts import Part, share
from adm_jax.sampling.shards import Damaged, Filling, Shards

_log = logging.getLogger(__name__)

Range = tuple[int, int]  # [begin, end)

_PAUSE = 0.2  # seconds between looks at what others make


class Turns(NamedTuple):
  """How a job is shared.

  Attributes:
    size: of a batch; batches begin at its multiples.
    own: this part's images.
    bounds: where each part begins.
    part: which of them this process makes.
    lacking: () -> the ranges whose inputs are not there yet, for jobs that enlarge another's.
  """
  size: int
  own: Range
  bounds: tuple[int, ...]
  part: Part
  lacking: Callable[[], Sequence[Range]] = tuple


def bounds(num: int, size: int, count: int) -> tuple[int, ...]:
  """Where each of `count` parts of `num` images begins, and the last ends, in whole batches."""
  batches = -(-num // size)
  return tuple(min(num, share(batches, i, count).start * size) for i in range(count)) + (num,)


def cut(ranges: Sequence[Range], size: int) -> list[Range]:
  """The ranges, cut where batches begin."""
  return [(max(begin, first), min(end, first + size)) for begin, end in ranges
          for first in range(begin // size * size, end, size)]


def meet(a: Range, b: Range) -> bool:
  """Whether two ranges have an image in common."""
  return a[0] < b[1] and b[0] < a[1]


def without(ranges: Sequence[Range], taken: Range | None) -> list[Range]:
  """The ranges less the images of another."""
  if taken is None:
    return list(ranges)
  parts = [part for begin, end in ranges for part in (
      (begin, min(end, taken[0])), (max(begin, taken[1]), end))]
  return [(begin, end) for begin, end in parts if begin < end]


def in_turn(batches: Sequence[Range], turns: Turns) -> tuple[list[Range], dict[int, list[Range]]]:
  """(this part's own batches, rising; those of each other part, from its end).

  Whoever helps another goes towards it, and begins with the part after its own, so that helpers
  spread over those that need help.
  """
  own = [batch for batch in batches if meet(batch, turns.own)]
  rest, count = {}, turns.part.count
  for i in range(1, count):
    other = (turns.part.index + i) % count
    between = turns.bounds[other:other + 2]
    rest[other] = [batch for batch in reversed(batches)
                   if between[0] <= batch[0] < between[1] and batch not in own]
  return own, rest


def ranges(job: Shards, filling: Filling, turns: Turns, heart: heartbeats.Heart,
           seen: Callable[[int], None] = lambda count: None) -> Iterator[Range]:
  """Yields what to make next, until there is nothing; made images are put into `filling`.

  Args:
    job: where they are stored.
    filling: what is made, and not stored yet.
    turns: how they are shared.
    heart: says what this process is at, and knows what others are at.
    seen: seen(count) after each look: so many are there, or made here.
  """
  part, began = turns.part, time.monotonic()
  while True:
    missing = without(job.missing(), filling.kept)
    seen(job.num - sum(end - begin for begin, end in missing))
    own, others = in_turn(cut(missing, turns.size), turns)
    lacking = turns.lacking() if missing else ()
    batch = _free(own, lacking, part, heart, heartbeats.SECONDS / 6)
    if batch is None and not part.alone:
      # A part of which nothing is seen may be about to start.
      started = {beat.index for beat in heart.others() if beat.count == part.count and beat.alive}
      late = time.monotonic() - began > heartbeats.SECONDS
      batch = _free([batch for other, batches in others.items() if late or other in started
                     for batch in batches], lacking, part, heart, heartbeats.SECONDS / 6)
    if filling.kept is not None and (batch is None or filling.kept[1] != batch[0]):
      filling.close()
      heart.say(making=None)
      if batch is None:
        continue  # with what is missing now
    if batch is not None:
      begin = batch[0] if filling.kept is None else filling.kept[0]
      heart.say(making=(begin, batch[1]))
      yield batch
    elif part.alone or not missing:
      return
    else:
      time.sleep(_PAUSE)


def _free(batches: Sequence[Range], lacking: Sequence[Range], part: Part, heart: heartbeats.Heart,
          most_age: float) -> Range | None:
  """The first batch whose inputs are there and that nobody else is at."""
  if not batches:
    return None
  claimed = [] if part.whole else [beat.making for beat in heart.others(most_age)
                                   if beat.alive and beat.making is not None]
  return next((batch for batch in batches
               if not any(meet(batch, other) for other in (*claimed, *lacking))), None)


def complete(job: Shards, part: Part, heart: heartbeats.Heart, make: Callable[[], None]) -> bool:
  """Makes what is missing of a job, and joins it; returns whether this process has joined it.

  Of the processes that are there when all is made, the first joins, and the others wait for it; a
  part that is alone ends before, where others have not made theirs.

  Args:
    job: the job.
    part: of it, that this process makes.
    heart: of this process.
    make: () -> None, makes what there is to make, as of `ranges`.
  """
  mine = False
  while not mine and not job.joined():
    make()
    if job.missing():
      if part.alone:
        break
    elif part.whole or not any(
        beat.alive and (beat.index, beat.count) < (part.index, part.count)
        for beat in heart.others()):
      mine = _joined(job)
    else:
      time.sleep(_PAUSE)
  if job.joined():
    heart.finished()
    job.finish()  # removes what came too late
    if mine:
      heartbeats.forget(job.folder)
  return mine


def _joined(job: Shards) -> bool:
  """Joins the shards of a job; False where one was damaged, and has to be made again."""
  try:
    job.finish()
    return True
  except Damaged as error:
    _log.warning(str(error))
    return False
