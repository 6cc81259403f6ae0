"""From an image file's bytes to the pixels that a network sees."""

import dataclasses
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from adm_jax.data import crops, limits
from adm_jax.errors import UsageError, one_line

# Pillow warns below our limit, in lines that name no file, and has an error above it.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)

FORMATS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'BMP')
_CROPS = {'center': crops.center_crop, 'random': crops.random_crop, None: None}
# Where a file may say that the camera was turned.
_ORIENTED = frozenset({'exif', 'xmp', 'XML:com.adobe.xmp', 'Raw profile type exif'})


@dataclasses.dataclass(frozen=True)
class Decoder:
  """Decodes, straightens, and crops.

  What the reference does is `convert('RGB')` and the crop, and on ordinary photographs this gives
  its pixels to the bit. It differs where that is wrong: a picture is turned as its EXIF says,
  transparent pixels show white rather than whatever color hides in them, and 16-bit gray levels
  are scaled rather than cut off at 255. Of an animation the first frame counts.

  Attributes:
    image_size: the side of the square to crop; without a crop None, for any one size, or the sides
      (H = W) that every image must have.
    crop: 'center', 'random' (as ADM's classifiers are trained; needs an `rng`, else the center is
      taken) or None.
    channels: 3, or 1 for gray levels.
  """
  image_size: int | None
  crop: str | None = 'center'
  channels: int = 3

  def __post_init__(self):
    if self.crop not in _CROPS:
      raise UsageError(f'crop {self.crop!r} is unknown: give center, random or None')
    if self.crop is not None and self.image_size is None:
      raise UsageError(f'crop {self.crop!r} needs an image_size: give one, or crop None')
    if self.image_size is not None and self.image_size < 1:
      raise UsageError(f'image_size={self.image_size}: give at least 1')
    if self.channels not in (1, 3):
      raise UsageError(f'channels={self.channels}: images have 3, or 1 for gray levels')

  def __call__(self, data: bytes, rng: np.random.Generator | None = None) -> np.ndarray:
    """uint8[H W C].

    Raises:
      TooLarge: the image, or what it is enlarged to for the crop, is beyond `limits.MOST_PIXELS`.
      Exception: whatever Pillow raises where `data` is no image.
    """
    # No `draft`, which decodes large JPEGs faster: it would change the pixels.
    image = straighten(_opened(io.BytesIO(data)), self.channels)
    if self.crop is None:
      pixels = np.asarray(image)
    elif self.crop == 'random' and rng is not None:
      pixels = crops.random_crop(image, self.image_size, rng)
    else:
      pixels = crops.center_crop(image, self.image_size)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def size(file: Any) -> tuple[int, int]:
  """(H, W) of a path's or open file's upright image; only its header is read."""
  with _opened(file) as image:
    turned = not _ORIENTED.isdisjoint(image.info) and image.getexif().get(0x0112, 1) > 4
    return image.size if turned else image.size[::-1]


def is_gray(file: Any) -> bool:
  """Whether a path's or open file's image has gray levels; only its header is read."""
  with _opened(file) as image:
    return image.mode == 'L'


def _opened(file: Any) -> Image.Image:
  """An image whose pixels are not decoded yet, and not too many."""
  image = Image.open(file, formats=FORMATS)
  limits.check_pixels(*image.size, 'it')
  return image


def reason(error: Exception) -> str:
  """Why an image cannot be decoded, in one line of ours where Pillow's is of no use."""
  if isinstance(error, UnidentifiedImageError):  # which names an object in memory
    return 'it is no image of a known format'
  if isinstance(error, Image.DecompressionBombError):
    return f'it would have more than the {limits.MOST_PIXELS:,} pixels that are decoded at most'
  return one_line(error) or type(error).__name__


def straighten(image: Image.Image, channels: int) -> Image.Image:
  """Any of Pillow's modes to upright RGB, or to gray levels where `channels` is 1."""
  wanted = 'RGB' if channels == 3 else 'L'
  image.load()  # it also completes `info`
  if not _ORIENTED.isdisjoint(image.info):
    image = ImageOps.exif_transpose(image)
  if image.mode == wanted and not image.has_transparency_data:  # PNGs may name a color for it
    return image
  if image.mode.startswith('I'):
    levels = np.asarray(image)
    if 'transparency' in image.info:  # one level, where Pillow would compare what is left of it
      levels = np.where(levels == image.info['transparency'], 65535, levels)
    levels = np.divide(levels.clip(0, 65535), 257, dtype=np.float32)
    image = Image.fromarray(levels.round(out=levels).astype(np.uint8))
  elif image.has_transparency_data:
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image.convert('RGBA'))
  return image.convert(wanted)
