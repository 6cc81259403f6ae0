"""Networks whose answer a test chooses, in place of real ones."""

from typing import Callable

from adm_jax.networks import Network


class StandIn:
  """A network whose `apply` is another function; everything else is the real one's."""

  def __init__(self, network: Network, apply: Callable):
    self._network, self.apply = network, apply

  def __getattr__(self, name):
    return getattr(self._network, name)
