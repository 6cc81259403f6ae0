"""Grids of images, as pictures to look at."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def grid(images: np.ndarray, columns: int, *, scale: int = 1, gap: int = 1) -> np.ndarray:
  """Lays images out row by row.

  Args:
    images: uint8[N H W C], C 1 or 3.
    columns: images a row.
    scale: whole factor of enlargement, by repetition.
    gap: white pixels between images.

  Returns:
    uint8[H' W' 3].
  """
  images = images.repeat(scale, axis=1).repeat(scale, axis=2)
  if images.shape[-1] == 1:
    images = images.repeat(3, axis=-1)
  n, height, width, channels = images.shape
  rows = -(-n // columns)
  canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255,
                   np.uint8)
  for i, image in enumerate(images):
    top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
    canvas[top:top + height, left:left + width] = image
  return canvas


def side_by_side(panels: dict[str, np.ndarray], *, margin: int = 16,
                 text_size: int = 15) -> Image.Image:
  """Panels uint8[H W 3] of one height next to each other, each under its title."""
  font = ImageFont.load_default(text_size)
  heading = 2 * text_size
  width = sum(panel.shape[1] + margin for panel in panels.values()) + margin
  height = max(panel.shape[0] for panel in panels.values()) + heading + margin
  picture = Image.new('RGB', (width, height), 'white')
  draw = ImageDraw.Draw(picture)
  left = margin
  for title, panel in panels.items():
    draw.text((left, text_size // 2), title, fill='black', font=font)
    picture.paste(Image.fromarray(panel), (left, heading))
    left += panel.shape[1] + margin
  return picture
