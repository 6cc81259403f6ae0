"""The paper's numbers beside ours: a row that was measured, and the tables that are written."""

import base64
import dataclasses
import html
import io
import pathlib
from typing import Any, Sequence

import numpy as np
from PIL import Image

from adm_jax.errors import printable
from adm_jax.evaluation.report import FULL
from adm_jax.evaluation.tables import METRICS, Row
from adm_jax.io import durations, files, npz, pictures
from adm_jax.io import markdown as markdown_lib


@dataclasses.dataclass(frozen=True)
class Result:
  """A row that was measured.

  Attributes:
    row: which.
    source: the command that made its samples, or the address they were fetched from.
    report: `Report.as_json()` of its samples; None if there are none, as `row.note` says.
    samples: the `.npz` they lie in.
    took: seconds of 'sampling' and 'measuring', where it was done here, and on which 'devices'.
  """
  row: Row
  source: str = ''
  report: dict[str, Any] | None = None
  samples: pathlib.Path | None = None
  took: dict[str, Any] = dataclasses.field(default_factory=dict)

  def rows(self) -> list[tuple[str, float | None, float | None, str]]:
    """(metric, the paper's value or None, ours or None, a verdict)."""
    if self.report is None:
      return [(METRICS[key], value, None, 'not run') for key, value in self.row.expected.items()]
    n, values = self.report['n'], self.report['values']
    rows = []
    for key, label in METRICS.items():
      if key not in values:
        continue
      # What another extractor measured is another quantity.
      paper = self.row.expected.get(key) if self.report['published'] else None
      ours = values[key]['value']
      if paper is None:
        verdict = ''
      elif n < FULL:
        verdict = f'{n:,} samples: not comparable'
      else:
        off = abs(ours - paper)
        verdict = 'agrees' if off <= self.row.tolerance[key] else f'off by {off:.3g}'
      rows.append((values[key]['label'], paper, ours, verdict))
    others = [value for key, value in values.items() if key not in METRICS]
    return rows + [(value['label'], None, value['value'], '') for value in others]

  @property
  def title(self) -> str:
    return f'Table {self.row.table}, {self.row.name}'

  def notes(self) -> list[str]:
    measured = [] if self.report is None else [self.report['title'], *self.report['notes']]
    return [note for note in (*measured, self.source and f'samples: {self.source}', self.time(),
                              self.row.note) if note]

  def time(self) -> str:
    """'time: sampling 2 h 10 min, measuring 3 min, on 2 processes with 4 x TPU v5 lite'."""
    parts = [f'{what} {durations.words(self.took[what])}' for what in ('sampling', 'measuring')
             if what in self.took]
    return f'time: {", ".join(parts)}, on {self.took["devices"]}' if parts else ''


def markdown(results: Sequence[Result]) -> str:
  """The table of paper against measured."""
  table = markdown_lib.table(
      ('row', 'metric', 'paper', 'measured', ''),
      [(result.title, metric, _number(paper), _number(ours), verdict)
       for result in results for metric, paper, ours, verdict in result.rows()])
  notes = [printable(f'- {result.title}: {note}') for result in results for note in result.notes()]
  return '\n'.join([table, '', *notes, ''])


def page(results: Sequence[Result]) -> str:
  """The same as a page of HTML that needs no other file, with a grid of each row's samples."""
  sections = []
  for result in results:
    rows = ''.join(
        f'<tr><td>{html.escape(metric)}<td>{_number(paper)}<td>{_number(ours)}'
        f'<td>{html.escape(verdict)}' for metric, paper, ours, verdict in result.rows())
    notes = ''.join(f'<p>{html.escape(note)}</p>' for note in result.notes())
    picture = ('' if result.samples is None else
               f'<img alt="samples" src="data:image/png;base64,{_grid(result.samples)}">')
    sections.append(f'<h2>{html.escape(result.title)}</h2>{notes}<table><tr><th>metric<th>paper'
                    f'<th>measured<th></tr>{rows}</table>{picture}')
  style = ('body{font-family:sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em 1em;'
           'text-align:left}img{max-width:100%;margin-top:1em}')
  return ('<!doctype html><meta charset="utf-8"><title>ADM, paper and measured</title>'
          f'<style>{style}</style><h1>ADM, paper and measured</h1>{"".join(sections)}')


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.4g}'


def _grid(samples: pathlib.Path, most: int = 32) -> str:
  images = npz.read(files.local(samples), 'arr_0')
  # Spread over the job: the first would all be of the first classes.
  chosen = np.asarray(images[np.linspace(0, len(images) - 1, min(most, len(images)), dtype=int)])
  scale = max(1, 64 // chosen.shape[2])
  with io.BytesIO() as file:
    Image.fromarray(pictures.grid(chosen, 8, scale=scale, gap=2)).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()
