"""What a sweep found, to look at: a table, the curve, and samples beside the training images."""

import pathlib

import numpy as np
from PIL import Image

from adm_jax.data.sources import Rows, Source
from adm_jax.evaluation.sweep import NEAREST, Found, Measures
from adm_jax.io import charts, npz, pictures
from adm_jax.io import markdown as markdown_lib
from adm_jax.io.files import written_whole

SHOWN = 16  # samples beside their nearest training images
_COLUMNS = 2  # of these


def write(found: Found, out: str | pathlib.Path, training: Source | None = None) -> None:
  """Writes OUT/table.md, OUT/curve.png and, with the training images, OUT/neighbors.png."""
  out = pathlib.Path(out)
  with written_whole(out / 'table.md') as part:
    part.write_text(table(found))
  pictures.write(out / 'curve.png', charts.draw(curve(found)))
  if training is not None and found.copies is not None:
    samples = npz.rows(out / 'points' / found.copies.point / 'samples.npz', 'arr_0')
    pictures.write(out / 'neighbors.png', neighbors(found, samples, training))


def table(found: Found) -> str:
  """A row per point, beside real images in place of samples; of what, in a line above."""
  same = [measures for measures in found.training if measures.num == found.points[0].measures.num]
  head = ('guidance', 'scale', 'images', 'agreement', 'Frechet distance',
          *(('times training images\'',) if same else ()), 'precision', 'recall')

  def row(name, scale, measures: Measures):
    times = (f'{measures.frechet_distance / same[0].frechet_distance:.2f}',) if same else ()
    return (name, scale, f'{measures.num:,}', f'{measures.agreement:.1%}',
            f'{measures.frechet_distance:.3f}', *times, f'{measures.precision:.3f}',
            f'{measures.recall:.3f}')
  rows = [row('training images', '', measures) for measures in found.training]
  rows += [row(point.guidance, f'{point.scale:g}', point.measures) for point in found.points]
  lines = [
      f'{found.model} ({found.steps}) against {found.reference_count:,} images of '
      f'{found.reference}, in the features of {found.judge} (hash {found.judge_hash}): not FID. '
      f'The judge is right on {found.accuracy:.1%} of these real images.', '',
      markdown_lib.table(head, rows), '']
  if found.copies is not None:
    lines += [f'The nearest training image differs from samples of {found.copies.point} by '
              f'{found.copies.samples:.3f}, from real images that were not trained on by '
              f'{found.copies.reference:.3f} (medians of the root mean square over pixels in '
              '[0, 1]).', '']
  return '\n'.join(lines)


def curve(found: Found) -> list[charts.Chart]:
  """Each measure against the scale, a line per kind of guidance."""
  num = found.points[0].measures.num
  real = [measures for measures in found.training if measures.num == num]

  def chart(field, title, levels):
    lines = []
    for name in dict.fromkeys(point.guidance for point in found.points):
      of = sorted((point.scale, getattr(point.measures, field)) for point in found.points
                  if point.guidance == name)
      lines.append(charts.Line(name, *zip(*of)))
    return charts.Chart(title, 'guidance scale', tuple(lines), levels)

  def of_training(field):
    return {'training images': getattr(real[0], field)} if real else {}
  return [
      chart('frechet_distance', "Frechet distance, judge's features (not FID)",
            of_training('frechet_distance')),
      chart('agreement', 'agreement with the asked class',
            {'judge on real images': found.accuracy}),
      chart('precision', 'precision', of_training('precision')),
      chart('recall', 'recall', of_training('recall'))]


def neighbors(found: Found, samples: np.ndarray, training: Source) -> Image.Image:
  """The first samples of a point, each before its nearest training images.

  Args:
    found: with copies.
    samples: uint8[N H W C], of that point.
    training: the same as was searched.
  """
  copies = found.copies
  chosen = range(min(SHOWN, len(copies.in_pixels)))
  ours = np.asarray(samples[:len(chosen)])
  rows = Rows(training)
  groups = [ours[:, None], *(np.stack([rows[np.array(nearest[i][:NEAREST])] for i in chosen])
                             for nearest in (copies.in_pixels, copies.in_features))]
  scale = max(1, 48 // samples.shape[2])
  share = -(-len(chosen) // _COLUMNS)
  titles = ('sample', 'nearest in pixels', "nearest in the judge's features")
  panels = {}
  for column in range(_COLUMNS):
    for title, images in zip(titles, groups, strict=True):
      part = images[column * share:(column + 1) * share]
      if len(part):
        # Titles name panels: a second column's differ by a space that no one sees.
        panels[title + ' ' * column] = pictures.grid(part.reshape(-1, *part.shape[2:]),
                                                     part.shape[1], scale=scale, gap=2)
  return pictures.side_by_side(panels, text_size=13)
