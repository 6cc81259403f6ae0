"""Lines over a common axis, as pictures: with Pillow, which is there, and no library of plots."""

import dataclasses
import math
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adm_jax.errors import printable

_COLORS = ('#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#17becf', '#8c564b', '#7f7f7f')
_LEVEL, _GRID, _FRAME = '#555555', '#e4e4e4', '#888888'
_FINE = 2  # all is drawn so many times larger, and shrunk: Pillow's lines have no smooth edges
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 30, 42  # pixels around the field of a chart
_TEXT = 13


@dataclasses.dataclass(frozen=True)
class Line:
  """Points that belong together, f[N] each, x rising."""
  name: str
  x: Sequence[float]
  y: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Chart:
  """Lines in one field.

  Attributes:
    title: what y is.
    x_label: what x is.
    lines: of finite numbers; the i-th has the i-th color in every chart.
    levels: {name: y}, dashed lines across the field, to compare with.
  """
  title: str
  x_label: str
  lines: tuple[Line, ...]
  levels: dict[str, float] = dataclasses.field(default_factory=dict)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
  """Round numbers in [low, high], at most so many: multiples of 1, 2 or 5 times a power of ten."""
  span = high - low
  power = 10.0 ** math.floor(math.log10(span / most))
  step = next(step for step in (power, 2 * power, 5 * power, 10 * power, 20 * power)
              if math.floor(high / step) - math.ceil(low / step) + 1 <= most)
  first = math.ceil(low / step)
  return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def draw(charts: Sequence[Chart], *, columns: int = 2, width: int = 460,
         height: int = 320) -> Image.Image:
  """Draws charts side by side, with the names of the lines below.

  Args:
    charts: at least one; the names are the first one's.
    columns: charts per row.
    width: of one, in pixels.
    height: of one, in pixels.
  """
  rows = -(-len(charts) // columns)
  names = [line.name for line in charts[0].lines]
  legend = 26 if names else 0
  canvas = Image.new('RGB', (columns * width * _FINE, (rows * height + legend) * _FINE), 'white')
  pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT * _FINE)
  for i, chart in enumerate(charts):
    _draw_chart(pen, font, chart, (i % columns) * width, (i // columns) * height, width, height)
  left, middle = _LEFT, rows * height + legend // 3
  for i, name in enumerate(names):
    pen.line(_fine(left, middle, left + 22, middle), fill=_color(i), width=2 * _FINE)
    text = printable(name)
    pen.text(_fine(left + 28, middle), text, fill='black', font=font, anchor='lm')
    left += 28 + int(font.getlength(text)) // _FINE + 24
  return canvas.resize((canvas.width // _FINE, canvas.height // _FINE), Image.Resampling.LANCZOS)


def _draw_chart(pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, chart: Chart, left: int,
                top: int, width: int, height: int) -> None:
  x_range = _range([x for line in chart.lines for x in line.x])
  y_range = _range([*(y for line in chart.lines for y in line.y), *chart.levels.values()])
  west, east = left + _LEFT, left + width - _RIGHT
  north, south = top + _TOP, top + height - _BOTTOM

  def at(x, y):
    return (west + (x - x_range[0]) / (x_range[1] - x_range[0]) * (east - west),
            south - (y - y_range[0]) / (y_range[1] - y_range[0]) * (south - north))

  for value in ticks(*y_range):
    y = at(x_range[0], value)[1]
    pen.line(_fine(west, y, east, y), fill=_GRID, width=_FINE)
    pen.text(_fine(west - 6, y), f'{value:g}', fill='black', font=font, anchor='rm')
  for value in ticks(*x_range, most=10):
    x = at(value, y_range[0])[0]
    pen.line(_fine(x, south, x, south + 4), fill=_FRAME, width=_FINE)
    pen.text(_fine(x, south + 7), f'{value:g}', fill='black', font=font, anchor='ma')
  pen.rectangle(_fine(west, north, east, south), outline=_FRAME, width=_FINE)
  pen.text(_fine(west, north - 8), printable(chart.title), fill='black', font=font, anchor='ls')
  pen.text(_fine((west + east) / 2, south + 36), printable(chart.x_label), fill='black', font=font,
           anchor='ms')
  for name, level in chart.levels.items():
    y = at(x_range[0], level)[1]
    for x in range(int(west), int(east), 9):
      pen.line(_fine(x, y, min(x + 5, east), y), fill=_LEVEL, width=_FINE)
  drawn = [[at(x, y) for x, y in zip(line.x, line.y, strict=True)] for line in chart.lines]
  for i, points in enumerate(drawn):
    pen.line([_fine(*point) for point in points], fill=_color(i), width=2 * _FINE, joint='curve')
    for x, y in points:
      pen.ellipse(_fine(x - 3, y - 3, x + 3, y + 3), fill=_color(i))
  for name, level in chart.levels.items():
    length = font.getlength(printable(name)) / _FINE
    x, y = _free(np.linspace(east - 4 - length, west + 4, 9), at(x_range[0], level)[1],
                 (north, south), length, drawn)
    pen.text(_fine(x, y), printable(name), fill=_LEVEL, font=font, anchor='ls')


def _free(lefts: np.ndarray, level: float, field: tuple[float, float], length: float,
          drawn: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
  """Where a level's name, above or below it, is farthest from the lines.

  Args:
    lefts: where it may begin, f[N].
    level: of which it is the name; y grows downwards.
    field: (north, south), in which the name has to lie.
    length: of the name.
    drawn: the lines' points.

  Returns:
    (x, y), the left end of its base line.
  """
  passed = [_between(np.array(points, float)) for points in drawn if points]
  passed = np.concatenate([np.empty((0, 2)), *passed])

  def room(place):
    x, y = place
    low, high = np.array([x, y - _TEXT]), np.array([x + length, y])
    away = np.linalg.norm(passed - passed.clip(low, high), axis=1)
    return field[0] < y - _TEXT and y < field[1], away.min(initial=np.inf)
  return max(((x, y) for y in (level - 4, level + 3 + _TEXT) for x in lefts), key=room)


def _between(points: np.ndarray) -> np.ndarray:
  """Points f[M, 2] along a line, at most pixels apart, of its corners f[N, 2]."""
  gone = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
  along = np.linspace(0, gone[-1], int(gone[-1]) + 2)
  return np.stack([np.interp(along, gone, column) for column in points.T], axis=1)


def _range(values: Sequence[float]) -> tuple[float, float]:
  """From the least to the largest, with some room; wide enough to divide by."""
  low, high = float(np.min(values)), float(np.max(values))
  room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
  return low - room, high + room


def _fine(*numbers: float) -> tuple[float, ...]:
  return tuple(number * _FINE for number in numbers)


def _color(index: int) -> str:
  return _COLORS[index % len(_COLORS)]
