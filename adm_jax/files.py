"""Files that are whole or absent."""

import contextlib
import os
import pathlib
from typing import Iterator


@contextlib.contextmanager
def written_whole(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary path beside `path`; moves it there if the block succeeds.

  Whoever finds `path` finds all of it, whenever the program was killed.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.stem}.part{path.suffix}')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
