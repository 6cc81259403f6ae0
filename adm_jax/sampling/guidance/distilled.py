"""The scale that a distilled network is told: its guidance is inside."""

import dataclasses
from typing import Sequence

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.sampling.guidance import base
from adm_jax.sampling.guidance.base import Bound, Run
from adm_jax.sampling.guidance.scales import Scale, scale_table, scales_of
from adm_jax.weights.folders import Trained

ROLE = 'distilled'


@dataclasses.dataclass(frozen=True, eq=False)
class Distilled:
  """Tells a distilled network how strongly to guide; nothing else is computed.

  Attributes:
    scale: as that of the guidance it was distilled from; None: halfway between the least and the
      most that it was taught.
  """
  scale: Scale | None = None

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    del dtype, loaded
    network = run.model.network
    if network.scales is None:
      raise UsageError(f'{run.name or "the model"} takes no scale, for it was not distilled: guide '
                       'it by a classifier, or by its own unconditional prediction')
    scale = sum(network.scales) / 2 if self.scale is None else self.scale
    check(network, run.name or 'it', scale_table(scale, run.schedule))
    return Bound(ROLE, lambda conditional, context: conditional, (Distilled,),
                 {'scale': base.described_scale(scale, run.schedule)},
                 scales_of(scale, run.schedule, off=np.nan))


def check(network: Network, name: str, scales: Sequence[float]) -> None:
  """Raises UsageError unless the student called `name` was taught all of `scales`."""
  low, high = network.scales
  for scale in (np.min(scales), np.max(scales)):
    if not low <= scale <= high:
      raise UsageError(f'a scale of {scale:g}: {name} was distilled for scales from {low:g} to '
                       f'{high:g}')
