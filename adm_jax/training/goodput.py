"""Where the wall time of a run went: into steps, or into what keeps the devices from them.

Pure: seconds in, seconds and shares out. `Ledger` in `metrics.py` reads the clock.
"""

import dataclasses
import json
from typing import Any, Iterable

_SHARE = 'share_'  # before each attribute's name, in a line


@dataclasses.dataclass(frozen=True)
class Goodput:
  """Seconds of a run, over all times that it was started; not those in between.

  Attributes:
    steps: the devices train.
    input: they have no images to train on.
    checkpoints: saving, as far as training waits for it.
    evaluation: pictures, quick evaluations and validation.
    compile: tracing and compiling, whatever for.
    restarts: all before the first step of each start, and the steps that a later start did again,
      with all that went on between them.
  """
  steps: float = 0.0
  input: float = 0.0
  checkpoints: float = 0.0
  evaluation: float = 0.0
  compile: float = 0.0
  restarts: float = 0.0

  @property
  def seconds(self) -> float:
    return sum(dataclasses.astuple(self))

  def plus(self, **seconds: float) -> 'Goodput':
    """With more seconds, by the attribute that they count as."""
    return dataclasses.replace(self, **{
        kind: getattr(self, kind) + more for kind, more in seconds.items()})

  def fields(self) -> dict[str, float]:
    """'wall_seconds', and what share of them each was: 'share_steps' and so on add up to 1."""
    whole = self.seconds
    return {'wall_seconds': round(whole, 3), **{
        _SHARE + kind: round(seconds / whole, 6) if whole else 0.0
        for kind, seconds in dataclasses.asdict(self).items()}}


KINDS = tuple(field.name for field in dataclasses.fields(Goodput))


def of_fields(line: dict[str, Any]) -> Goodput:
  """What `fields` told; of a line that has none, as those of older runs, nothing."""
  whole = line.get('wall_seconds', 0.0)
  return Goodput(**{kind: whole * line.get(_SHARE + kind, 0.0) for kind in KINDS})


def so_far(lines: Iterable[str], saved: int) -> Goodput:
  """What the earlier starts of a run took, of which the steps after `saved` were lost.

  Args:
    lines: of `speed.jsonl`, as JSON. Later ones than that of step `saved` are of a start that ended
      before it could save: all that it took since counts as restarts. What it took after its last
      line is not known. A line that a crash cut short is left out.
    saved: the step of the checkpoint that the run goes on from.
  """
  kept = last = Goodput()
  for line in lines:
    try:
      values = json.loads(line)
      found, step = of_fields(values), values['step']
    except (ValueError, KeyError, TypeError, AttributeError):
      continue
    last = found
    if step <= saved:
      kept = found
  return kept.plus(restarts=max(0.0, last.seconds - kept.seconds))


def sentence(fields: dict[str, float]) -> str:
  """'1:02:03 h: 93.1% steps, 2.0% input, ...', of a line that has the fields."""
  minutes, seconds = divmod(round(fields['wall_seconds']), 60)
  return (f'wall time {minutes // 60}:{minutes % 60:02d}:{seconds:02d} h: '
          + ', '.join(f'{fields[_SHARE + kind]:.1%} {kind}' for kind in KINDS))
