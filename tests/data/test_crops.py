"""ADM's crops, to the bit."""

import json
import types

import golden_files
import numpy as np
import pytest
from PIL import Image

from adm_jax.data import crops


def _cases():
  path = golden_files.FOLDER / 'crops.npz'
  return [] if not path.exists() else json.loads(str(np.load(path)['meta']))['cases']


CASES = _cases()


@pytest.mark.skipif(not CASES, reason='the golden folder holds no crops.npz')
@pytest.mark.parametrize('case', CASES, ids=lambda case: str(case['index']))
def test_crops_are_the_references_pixels(case):
  arrays = np.load(golden_files.FOLDER / 'crops.npz')
  i, size = case['index'], case['size']
  image = Image.fromarray(arrays[f'in_{i}'])
  np.testing.assert_array_equal(crops.center_crop(image, size), arrays[f'center_{i}'])
  draws = iter([case['smaller_side'], case['crop_y'], case['crop_x']])  # those of the reference
  rng = types.SimpleNamespace(integers=lambda *_: next(draws))
  np.testing.assert_array_equal(crops.random_crop(image, size, rng), arrays[f'random_{i}'])


def test_random_crops_are_crops_of_the_allowed_sizes():
  """Each is a square of the image shrunk to one of them, and the draws differ."""
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 12, 3), np.uint8))
  shrunk = [np.asarray(image.resize((side, round(20 / 12 * side)), Image.Resampling.BICUBIC))
            for side in (8, 9, 10)]
  possible = {pixels[top:top + 8, left:left + 8].tobytes()
              for pixels in shrunk for top in range(10) for left in range(3)}
  drawn = [crops.random_crop(image, 8, np.random.default_rng(seed)) for seed in range(30)]
  assert all(crop.shape == (8, 8, 3) and crop.tobytes() in possible for crop in drawn)
  assert len({crop.tobytes() for crop in drawn}) > 15
