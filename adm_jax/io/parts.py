"""One job on several hosts that share a folder: which part of it a process makes."""

import dataclasses
import re

from adm_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Part:
  """Part `index` of `count`; by default all of a job.

  Attributes:
    index: from 0.
    count: how many parts there are.
    alone: whether it knows nothing of the others: it makes its own part and ends, where others also
      make what nobody else does, and stay until all is there.
  """
  index: int = 0
  count: int = 1
  alone: bool = False

  @property
  def whole(self) -> bool:
    return self.count == 1

  @property
  def first(self) -> bool:
    return self.index == 0

  def of(self, total: int) -> range:
    """This part of range(total): consecutive, of sizes that differ by at most one."""
    return share(total, self.index, self.count)

  def __str__(self) -> str:
    return f'{self.index}/{self.count}'


def share(total: int, index: int, count: int) -> range:
  """Part `index` of `count` of range(total)."""
  return range(total * index // count, total * (index + 1) // count)


def parse(words: str) -> Part:
  """The part that 'I/N' names.

  Raises:
    UsageError: it names none.
  """
  found = re.fullmatch(r'(\d{1,6})/(\d{1,6})', words, re.ASCII)
  index, count = (int(found[1]), int(found[2])) if found else (0, 0)
  if count < 1:
    raise UsageError(f'--part {words}: give I/N, two whole numbers, as 0/3 for the first of three')
  if index >= count:
    raise UsageError(f'--part {words}: parts count from 0, give 0/{count} to {count - 1}/{count}')
  return Part(index, count, alone=True)
