"""How far a sampling job is, and who works on it, from what lies in its folder."""

import dataclasses
import pathlib

from adm_jax.errors import UsageError, printable
from adm_jax.io import durations, files, heartbeats
from adm_jax.io.heartbeats import Beat
from adm_jax.sampling import shards
from adm_jax.sampling.shards import Shards

# Where commands put jobs in their own folders: a base, a reproduced row's, a sweep's points.
_BELOW = ('base', 'table*/*/samples', 'table*/*/samples/base', 'points/*')


@dataclasses.dataclass(frozen=True)
class Status:
  """A job as it is now.

  Attributes:
    job: it.
    there: how many images are stored.
    joined: whether they are in samples.npz.
    beats: what its processes said last.
  """
  job: Shards
  there: int
  joined: bool
  beats: tuple[Beat, ...]

  @property
  def rate(self) -> float:
    """Images per second, of all processes that are there."""
    return sum(beat.rate for beat in self.beats if beat.alive)

  def text(self) -> str:
    """A line for the job, and one for each process that has something to say."""
    num = self.job.num
    line = f'{self.job.folder}: {self.there:,} of {num:,} images'
    if self.joined:
      return printable(f'{line}, joined in {self.job.samples.name}')
    alive = sum(beat.alive for beat in self.beats)
    line += f' ({self.there / num:.0%}), {alive} process{"" if alive == 1 else "es"} at work'
    if self.there == num:
      line += ', to be joined'
    elif self.rate > 0:
      line += f', {self.rate:.3g} images/s, {durations.words((num - self.there) / self.rate)} to go'
    elif not alive:
      line += '; the same command goes on'
    return '\n'.join(map(printable, [line, *map(_line, self.beats)]))


def of_folder(folder: str | pathlib.Path) -> list[Status]:
  """The jobs in a folder of `adm sample`, or below one of `adm reproduce` or `adm sweep`.

  Raises:
    UsageError: there is none.
  """
  folder = files.folder(folder)
  files.refresh(folder)
  if not folder.is_dir():
    raise UsageError(f'there is no folder {folder}')
  below = [path for pattern in _BELOW for path in sorted(folder.glob(pattern))]
  found = [path for path in (*below, folder) if (path / 'job.json').exists()]
  if not found:
    raise UsageError(f'{folder} holds no job of adm sample: give its --out')
  return [_of_job(shards.in_folder(path)) for path in found]


def _of_job(job: Shards) -> Status:
  joined = job.joined()
  return Status(job, job.num if joined else job.done(), joined,
                () if joined else tuple(heartbeats.read(job.folder)))


def _line(beat: Beat) -> str:
  state = ('ended' if beat.ended else 'gone' if not beat.alive else
           'waits' if beat.making is None else f'at {beat.making[0]} to {beat.making[1] - 1}')
  return (f'  {beat.index}/{beat.count} on {beat.host}: {beat.made:,} images made, '
          f'{beat.rate:.3g}/s, {state}, seen {durations.words(beat.age)} ago')
