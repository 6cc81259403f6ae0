"""From what a user calls a class to an integer for each image."""

import difflib
import functools
import importlib.resources
import re
from typing import Sequence

import jax
import numpy as np

from adm_jax.errors import UsageError

Names = tuple[tuple[str, ...], ...]  # the names of each class, the first its usual one


@functools.cache
def imagenet() -> Names:
  """The 1,000 classes of ILSVRC 2012 in the order of their labels; the last name is the WordNet id.

  The names are those of the WordNet synsets; labels are the rank of the sorted ids, as the
  reference's are.
  """
  text = importlib.resources.files('adm_jax.data').joinpath('imagenet_classes.tsv').read_text()
  rows = (line.split('\t') for line in text.splitlines())
  return tuple((*names.split(', '), synset) for synset, names in rows)


def find(words: str, num_classes: int, names: Names | None = None) -> list[int]:
  """The classes that a list like '207, golden retriever, 3-5' means.

  Args:
    words: indices, ranges of them and names, separated by commas.
    num_classes: of the model.
    names: of its classes, where known.

  Raises:
    UsageError: no such class, with the nearest names; or a name of several.
  """
  found = []
  for word in filter(None, (word.strip() for word in words.split(','))):
    if match := re.fullmatch(r'(-?\d+)(?:-(\d+))?', word):
      first, last = int(match[1]), int(match[2] or match[1])
      if not 0 <= first <= last < num_classes:
        raise UsageError(f'class {word} is out of range: the model has {num_classes} classes, 0 to '
                         f'{num_classes - 1}')
      found += range(first, last + 1)
    else:
      found.append(_named(word, num_classes, names))
  if not found:
    raise UsageError('no class is named: give indices or names, separated by commas')
  return found


def _named(word: str, num_classes: int, names: Names | None) -> int:
  if names is None:
    raise UsageError(f'class {word!r} cannot be looked up, since the classes of this model have no '
                     f'names here: give an index, 0 to {num_classes - 1}')
  classes = {}
  for index, synonyms in enumerate(names):
    for name in synonyms:
      classes.setdefault(name.lower(), []).append(index)
  having = classes.get(word.lower(), [])
  if not having:
    near = difflib.get_close_matches(word.lower(), classes, n=3, cutoff=0.5)
    hint = ', '.join(f'{name} ({classes[name][0]})' for name in near)
    raise UsageError(f'there is no class {word!r}: '
                     + (f'did you mean {hint}?' if near else 'give an index or another name'))
  if len(having) > 1:
    raise UsageError(f'{word!r} is the name of several classes: give one of the indices '
                     f'{", ".join(map(str, having))}')
  return having[0]


def in_turn(classes: Sequence[int], num: int) -> np.ndarray:
  """i32[num]: the classes again and again."""
  return np.resize(np.asarray(classes, np.int32), num)


def drawn(classes: Sequence[int], num: int, key: jax.Array) -> np.ndarray:
  """i32[num]: drawn uniformly; image i's class is a function of (key, i) alone."""
  def draw(index):
    return jax.random.randint(jax.random.fold_in(key, index), (), 0, len(classes))
  return np.asarray(classes, np.int32)[jax.jit(jax.vmap(draw))(np.arange(num))]
