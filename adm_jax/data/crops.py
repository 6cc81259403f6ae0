"""ADM's crops, to the bit: halve by boxes, then bicubic, then cut (`image_datasets.py`).

Repeated box filters before the bicubic one keep large photographs from aliasing; published
statistics were computed on exactly these pixels.
"""

import math

import numpy as np
from PIL import Image

from adm_jax.data import limits


def _shrink_to(image: Image.Image, smaller_side: int) -> np.ndarray:
  while min(image.size) >= 2 * smaller_side:
    image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
  scale = smaller_side / min(image.size)
  size = (round(image.width * scale), round(image.height * scale))
  limits.check_pixels(*size, f'of {image.width:,} x {image.height:,} pixels, its crop')
  if size != image.size:  # else Pillow would copy it
    image = image.resize(size, Image.Resampling.BICUBIC)
  return np.asarray(image)


def center_crop(image: Image.Image, size: int) -> np.ndarray:
  """The central square, uint8[size size C], of an image shrunk to just hold it."""
  pixels = _shrink_to(image, size)
  top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
  return pixels[top:top + size, left:left + size]


def random_crop(image: Image.Image, size: int, rng: np.random.Generator, *,
                least: float = 0.8) -> np.ndarray:
  """A random square of an image shrunk so that the square spans `least` to all of the smaller side.

  ADM trains its classifiers on these.
  """
  smaller_side = int(rng.integers(size, math.ceil(size / least) + 1))
  pixels = _shrink_to(image, smaller_side)
  top, left = (int(rng.integers(side - size + 1)) for side in pixels.shape[:2])
  return pixels[top:top + size, left:left + size]
