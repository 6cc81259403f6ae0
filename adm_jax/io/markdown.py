"""Tables in Markdown."""

from typing import Iterable, Sequence

from adm_jax.errors import printable


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a table, a line per row, whose cells may hold any text: none ends its cell or line."""
  lines = [head, ('---',) * len(head), *([_cell(text) for text in row] for row in rows)]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(text: str) -> str:
  return printable(text).replace('|', r'\|')
