"""Nearest neighbors in parts are those of the whole."""

import numpy as np
import pytest

from adm_jax.evaluation import neighbors


@pytest.mark.parametrize('parts', [1, 3, 10])
def test_parts_give_what_the_whole_gives(parts):
  rng = np.random.default_rng(0)
  vectors, others = (rng.normal(size=(n, 5)).astype(np.float32) for n in (4, 30))
  found, start = neighbors.none_yet(4, 3), 0
  for part in np.array_split(others, parts):
    found = neighbors.closer(found, vectors, part, start)
    start += len(part)
  squared = ((vectors[:, None] - others[None]) ** 2).sum(axis=-1)
  order = squared.argsort(axis=1)[:, :3]
  np.testing.assert_array_equal(found.index, order)
  np.testing.assert_allclose(found.squared, np.take_along_axis(squared, order, axis=1), rtol=1e-4)


def test_fewer_others_than_are_sought_leave_places_empty():
  found = neighbors.closer(neighbors.none_yet(1, 3), np.zeros((1, 2), np.float32),
                           np.ones((2, 2), np.float32), 7)
  np.testing.assert_array_equal(found.index, [[7, 8, -1]])
  np.testing.assert_array_equal(found.squared, [[2, 2, np.inf]])
