"""Progress bars with rate and time to go."""

import contextlib
import sys
from typing import Callable, Iterator

import tqdm


@contextlib.contextmanager
def bar(total: int, title: str, initial: int = 0) -> Iterator[Callable[..., None]]:
  """Shows a bar, of which `initial` was done before; gives advance(count, note='')."""
  # A log file gets a line now and then, not one a tenth of a second.
  interval = 0.1 if sys.stderr.isatty() else 15
  with tqdm.tqdm(total=total, initial=initial, desc=f'{title:<24}', mininterval=interval,
                 dynamic_ncols=True,
                 bar_format='{desc}{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} '
                            '[{elapsed}<{remaining}, {rate_fmt}] {postfix}') as shown:
    def advance(count: int, note: str = '') -> None:
      if note:
        shown.set_postfix_str(note, refresh=False)
      shown.update(count)
    yield advance
