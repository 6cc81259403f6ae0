"""Labels: what a user types, and which class an image gets."""

import jax
import numpy as np
import pytest

from adm_jax.data import class_names
from adm_jax.errors import UsageError

NAMES = (('tench', 'Tinca tinca'), ('crane',), ('golden retriever',), ('crane',), ('otter',))


def test_imagenet_is_sorted_by_wordnet_id_as_the_labels_are():
  names = class_names.imagenet()
  synsets = [synonyms[-1] for synonyms in names]
  assert len(names) == 1000 and synsets == sorted(set(synsets))
  assert names[207][0] == 'golden retriever' and names[360][0] == 'otter'
  assert class_names.find('n02099601, Golden Retriever,207', 1000, names) == [207] * 3


def test_every_imagenet_name_finds_its_class_or_says_that_it_has_several():
  names = class_names.imagenet()
  for index, synonyms in enumerate(names):
    assert class_names.find(synonyms[-1], 1000, names) == [index]
    for name in synonyms:
      try:
        assert class_names.find(name, 1000, names) == [index]
      except UsageError as error:
        assert 'several' in str(error) and str(index) in str(error)


def test_indices_ranges_and_names_in_the_order_given():
  assert class_names.find('4, 0-2,Tinca tinca', 5, NAMES) == [4, 0, 1, 2, 0]
  assert class_names.find('7', 8) == [7]


@pytest.mark.parametrize('words, names, message', [
    ('5', NAMES, 'out of range.*0 to 4'), ('3-1', NAMES, 'out of range'),
    ('0-5', NAMES, 'out of range'), ('goldn retriever', NAMES, r'golden retriever \(2\)'),
    ('crane', NAMES, 'several.*1, 3'), ('otter', None, 'give an index, 0 to 4'),
    ('', NAMES, 'no class'), (' , ', NAMES, 'no class')])
def test_what_is_no_class_is_refused(words, names, message):
  with pytest.raises(UsageError, match=message):
    class_names.find(words, 5, names)


def test_in_turn():
  np.testing.assert_array_equal(class_names.in_turn([4, 2, 7], 7), [4, 2, 7, 4, 2, 7, 4])


def test_drawn_labels_are_uniform_and_a_function_of_key_and_index_alone():
  key = jax.random.key(3)
  drawn = class_names.drawn([1, 3, 4], 3000, key)
  assert drawn.dtype == np.int32
  np.testing.assert_array_equal(class_names.drawn([1, 3, 4], 10, key), drawn[:10])
  counts = np.bincount(drawn, minlength=5)
  assert counts[[0, 2]].sum() == 0
  # A standard deviation is 26.
  np.testing.assert_allclose(counts[[1, 3, 4]], 1000, atol=130)
  assert (class_names.drawn([1, 3, 4], 3000, jax.random.key(4)) != drawn).any()
