"""What a run has written of its losses."""

import json
import pathlib


def read(workdir: pathlib.Path) -> list[dict]:
  """All lines of a work directory's metrics."""
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
