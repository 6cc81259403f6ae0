"""Which training images are nearest to what a model made: whether it copies.

Training images pass by once, a batch at a time, however many there are.
"""

from typing import Callable, NamedTuple

import numpy as np

from adm_jax.data.sources import Source
from adm_jax.evaluation.features import Extractor, extract_batches


class Nearest(NamedTuple):
  """The k nearest of others to each of N vectors, the nearest first.

  Attributes:
    squared: f32[N k], squared distances; infinite where there were fewer others.
    index: i64[N k], which of the others; -1 there.
  """
  squared: np.ndarray
  index: np.ndarray


def none_yet(count: int, k: int) -> Nearest:
  """Of `count` vectors that have met no others."""
  return Nearest(np.full((count, k), np.inf, np.float32), np.full((count, k), -1, np.int64))


def closer(found: Nearest, vectors: np.ndarray, others: np.ndarray, start: int) -> Nearest:
  """The nearest among those found and more others.

  Args:
    found: of `vectors`.
    vectors: f32[N D].
    others: f32[B D].
    start: the number of the first of the others.
  """
  squared = (np.square(vectors).sum(axis=1)[:, None] - 2 * vectors @ others.T
             + np.square(others).sum(axis=1)[None])
  squared = np.concatenate([found.squared, np.maximum(squared, 0)], axis=1)
  index = np.concatenate([found.index, np.broadcast_to(start + np.arange(len(others)),
                                                       (len(vectors), len(others)))], axis=1)
  # Stable: of equally near ones the first stays first.
  order = np.argsort(squared, axis=1, kind='stable')[:, :found.squared.shape[1]]
  return Nearest(*(np.take_along_axis(array, order, axis=1) for array in (squared, index)))


def in_both(images: np.ndarray, features: np.ndarray, training: Source, extractor: Extractor, *,
            k: int = 4, batch_size: int = 256,
            advance: Callable[[int], None] = lambda count: None) -> tuple[Nearest, Nearest]:
  """The nearest training images, in pixels and in features.

  Args:
    images: uint8[N H W C].
    features: f32[N D], of the images.
    training: all that they may be copies of.
    extractor: made the features.
    k: how many of each.
    batch_size: of the training images.
    advance: advance(count) after each batch.

  Returns:
    In pixels, in squared units of the mean over pixels of values in [0, 1]; in squared units of
    the features.
  """
  pixels, start = _vectors(images), 0
  in_pixels, in_features = none_yet(len(images), k), none_yet(len(images), k)
  for batch, seen in extract_batches(extractor, training, batch_size=batch_size, advance=advance):
    in_pixels = closer(in_pixels, pixels, _vectors(batch), start)
    in_features = closer(in_features, features, seen.pool, start)
    start += len(batch)
  return in_pixels, in_features


def _vectors(images: np.ndarray) -> np.ndarray:
  """f32[N HWC], so that squared distances are means over pixels of values in [0, 1]."""
  flat = images.reshape(len(images), -1).astype(np.float32) / 255
  return flat / np.float32(np.sqrt(flat.shape[1]))
