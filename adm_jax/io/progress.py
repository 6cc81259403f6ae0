"""Progress bars with rate and time to go."""

import contextlib
import sys
from typing import Callable, Iterator

import tqdm

_BAR = '{desc}{percentage:3.0f}%|{bar:20}| '
_TIMES = ' [{elapsed}<{remaining}, {rate_fmt}{postfix}]'


def _shown(counts: str, title: str, **kwargs) -> tqdm.tqdm:
  # A log file gets a line now and then, not one a tenth of a second.
  interval = 0.1 if sys.stderr.isatty() else 15
  return tqdm.tqdm(desc=f'{title:<24}', mininterval=interval, dynamic_ncols=True,
                   bar_format=_BAR + counts + _TIMES, **kwargs)


@contextlib.contextmanager
def bar(total: int, title: str) -> Iterator[Callable[..., None]]:
  """Shows a bar; gives advance(count, note='')."""
  with _shown('{n_fmt}/{total_fmt}', title, total=total) as shown:
    def advance(count: int, note: str = '') -> None:
      if note:
        shown.set_postfix_str(note, refresh=False)
      shown.update(count)
    yield advance


@contextlib.contextmanager
def no_bar(total: int, title: str) -> Iterator[Callable[..., None]]:
  """`bar` that shows nothing, for processes beside the first."""
  yield lambda count, note='': None


@contextlib.contextmanager
def images(total: int, done: int, steps: int, title: str,
           note: str) -> Iterator[Callable[..., None]]:
  """Shows a bar of images, `done` of which were there before; gives advance(image-steps).

  An image that is half sampled counts half. advance(..., own=False) is of what others made.
  """
  with _shown('{n:.1f} of {total} images', title, total=total, initial=done, unit=' images',
              postfix=note) as shown:
    yield lambda count, own=True: shown.update(count / steps)


@contextlib.contextmanager
def no_images(total: int, done: int, steps: int, title: str,
              note: str) -> Iterator[Callable[..., None]]:
  """`images` that shows nothing, for processes beside the first."""
  yield lambda count, own=True: None
