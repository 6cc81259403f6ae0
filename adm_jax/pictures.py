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


def side_by_side(panels: dict[str, np.ndarray], *, row_names: tuple[str, ...] = (),
                 margin: int = 16, text_size: int = 15) -> Image.Image:
  """Panels uint8[H W 3] next to each other, each under its title.

  Args:
    panels: {title: panel}, of one height.
    row_names: of the panels' rows, which share the height evenly; written left of the first.
    margin: white pixels around panels.
    text_size: in pixels.
  """
  font = ImageFont.load_default(text_size)
  heading = 2 * text_size
  heights = [panel.shape[0] for panel in panels.values()]
  widths = [max(panel.shape[1], int(font.getlength(title))) for title, panel in panels.items()]
  left = margin * (2 if row_names else 1)
  picture = Image.new('RGB', (left + sum(widths) + margin * len(widths),
                              max(heights) + heading + margin), 'white')
  draw = ImageDraw.Draw(picture)
  for i, name in enumerate(row_names):
    middle = heading + max(heights) * (i + 0.5) / len(row_names)
    draw.text((margin, middle), name, fill='black', font=font, anchor='mm')
  for (title, panel), width in zip(panels.items(), widths, strict=True):
    draw.text((left, text_size // 2), title, fill='black', font=font)
    picture.paste(Image.fromarray(panel), (left, heading))
    left += width + margin
  return picture
