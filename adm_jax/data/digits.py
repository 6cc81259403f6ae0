"""The embedded data set: 1,797 handwritten digits, 8 x 8, 10 classes, in every scikit-learn.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998. No network is needed.
"""

import numpy as np

from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError

HELD_OUT = 360  # of the 1,797


def digits(split: str = 'train') -> ArraySource:
  """The digits, uint8[N 8 8 1].

  Args:
    split: 'train' (1,437 images) or 'held_out' (360); the cut is the same for everyone.
  """
  from sklearn import datasets  # a second to import, which only users of this set should pay

  if split not in ('train', 'held_out'):
    raise UsageError(f'the digits have no split {split!r}: give train or held_out')
  images, labels = datasets.load_digits(return_X_y=True)
  # 17 gray levels, 0 to 16, over the whole of 0 to 255.
  images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
  order = np.random.default_rng(0).permutation(len(images))
  chosen = order[:HELD_OUT] if split == 'held_out' else order[HELD_OUT:]
  return ArraySource(f'digits/{split}', images[chosen], labels[chosen].astype(np.int32),
                     tuple(str(digit) for digit in range(10)))
