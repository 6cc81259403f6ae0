"""Orbax checkpoints in folders: which are whole, and reading them with mistakes in one line.

    WORKDIR/config.json                the config that made it
    WORKDIR/checkpoints/STEP/state     arrays, among them `params` and `ema`
"""

import contextlib
import logging
import pathlib
from typing import Any, Callable, Iterator

import jax

from adm_jax.devices import hosts
from adm_jax.errors import UsageError, one_line
from adm_jax.io import files

STATE = 'state'  # the item of a checkpoint that holds the arrays


def orbax():
  """Imports Orbax: a quarter of a second, which importing the package need not pay."""
  import orbax.checkpoint as ocp
  return ocp


def saved_steps(workdir: str | pathlib.Path) -> list[int]:
  """The steps of the whole checkpoints of a work directory, rising."""
  folder = files.folder(workdir) / 'checkpoints'
  if not folder.is_dir():
    return []
  return sorted(orbax().utils.checkpoint_steps(folder))


def restoring(folder: pathlib.Path, like: Any, restore: Callable[[pathlib.Path], Any],
               partial: bool = False) -> Any:
  """Calls `restore` on a folder whose tensors are those of `like`; damage is told in one line.

  With `partial`, the folder may hold more.

  Raises:
    UsageError: files are missing, cut short or of another architecture.
    Exception: whatever else stops it, unchanged, as a lost process or what a disk refuses.
  """
  ocp = orbax()
  with _naming_damage(folder), _without_warnings():
    tree = ocp.StandardCheckpointer().metadata(folder / STATE).item_metadata.tree
    found = shapes_of(tree)
  wanted = shapes_of(like)
  check_shapes(folder, {name: found[name] for name in found if name in wanted or not partial},
                wanted)
  with _naming_damage(folder), _without_warnings():
    return restore(folder)


def check_shapes(folder: pathlib.Path, found: dict[str, tuple], wanted: dict[str, tuple]) -> None:
  """Raises UsageError, like a diff, unless {path: shape} are the same."""
  lines = [f'{name}: {found.get(name, "absent")} in the checkpoint, '
           f'{wanted.get(name, "absent")} in the network'
           for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
  if lines:
    more = f'; and {len(lines) - 6} more' if len(lines) > 6 else ''
    raise UsageError(f'the checkpoint {folder} is of another architecture: '
                     f'{"; ".join(lines[:6])}{more}')


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """Orbax misses the whole checkpoint's description whenever one item of it is read alone."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
  """Returns {path: shape} of a tree of arrays or of what describes them."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, 'shape'))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
          for path, leaf in leaves}


@contextlib.contextmanager
def _naming_damage(folder: pathlib.Path) -> Iterator[None]:
  """Turns what Orbax makes of missing and damaged files into a UsageError."""
  try:
    yield
  except Exception as error:
    if not _is_of_data(error):
      raise
    missing = isinstance(error, AttributeError)  # Orbax's way to say that a description is absent
    reason = 'a file is missing' if missing else one_line(error)
    raise UsageError(
        f'the checkpoint {folder} cannot be read ({reason}): if it was cut short, move it away and '
        'the run goes on from the one before') from error


def _is_of_data(error: Exception) -> bool:
  """Whether reading would fail again; whoever is told so moves the checkpoint away."""
  if isinstance(error, OSError):
    return isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError))
  return not (isinstance(error, (jax.errors.JaxRuntimeError, MemoryError))
              or hosts.is_of_lost_peer(error))
