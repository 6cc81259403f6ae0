"""Grids of images, as pictures to look at."""

import concurrent.futures
import io
import math
import pathlib
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adm_jax.errors import printable
from adm_jax.io.files import written_whole


def grid(images: np.ndarray, columns: int, *, scale: int = 1, gap: int = 1) -> np.ndarray:
  """Lays images out row by row.

  Args:
    images: uint8[N H W C], C 1 or 3.
    columns: images per row.
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


def write_grid(path: pathlib.Path, images: np.ndarray, labels: np.ndarray | None = None,
               names: Sequence[Sequence[str]] | None = None, *, most: int = 64,
               columns: int | None = None) -> None:
  """Draws the first images uint8[N H W C] in `columns`, or a near square, each above its class."""
  images = np.asarray(images[:most])
  columns = columns or math.ceil(math.sqrt(len(images)))
  scale = max(1, 64 // images.shape[2])
  text = 11
  gap = 4 if labels is None else text + 6
  canvas = Image.fromarray(np.pad(grid(images, columns, scale=scale, gap=gap),
                                  ((gap, gap), (gap, gap), (0, 0)), constant_values=255))
  if labels is not None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(text)
    for i, label in enumerate(labels[:len(images)]):
      left, top = (gap + (i % columns) * (images.shape[2] * scale + gap),
                   gap + (i // columns + 1) * (images.shape[1] * scale + gap) - gap)
      caption = str(label) if names is None else printable(names[label][0][:80])
      while caption and font.getlength(caption) > images.shape[2] * scale + gap - 2:
        caption = caption[:-1]
      draw.text((left, top + 2), caption, fill='black', font=font)
  write(path, canvas)


def write(path: pathlib.Path, picture: Image.Image) -> None:
  """Writes a picture as PNG."""
  _write(path, picture, sync=True)


def _write(path, picture, sync):
  encoded = io.BytesIO()
  picture.save(encoded, 'PNG')
  with written_whole(path, sync=sync) as part:  # perhaps in a bucket, where Pillow cannot write
    part.write_bytes(encoded.getvalue())


def write_folder(folder: pathlib.Path, images: np.ndarray,
                 labels: np.ndarray | None = None) -> None:
  """Writes uint8[N H W C] as LABEL_INDEX.png, or INDEX.png; those that are there stay.

  What stands before the first '_' is the class to the reference's data sets, and to ours.
  """
  folder.mkdir(parents=True, exist_ok=True)

  def write(i):
    name = f'{i:06d}.png' if labels is None else f'{labels[i]:03d}_{i:06d}.png'
    if not (folder / name).exists():
      image = images[i]
      _write(folder / name, Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image),
             sync=False)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    for _ in pool.map(write, range(len(images))):
      pass


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
  names_width = max(map(int, map(font.getlength, row_names)), default=0)
  left = margin + (names_width + margin if row_names else 0)
  picture = Image.new('RGB', (left + sum(widths) + margin * len(widths),
                              max(heights) + heading + margin), 'white')
  draw = ImageDraw.Draw(picture)
  for i, name in enumerate(row_names):
    middle = heading + max(heights) * (i + 0.5) / len(row_names)
    draw.text((margin, middle), name, fill='black', font=font, anchor='lm')
  for (title, panel), width in zip(panels.items(), widths, strict=True):
    draw.text((left, text_size // 2), title, fill='black', font=font)
    picture.paste(Image.fromarray(panel), (left, heading))
    left += width + margin
  return picture
