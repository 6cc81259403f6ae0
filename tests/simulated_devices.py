"""Flags of XLA for a process of several simulated devices."""

import os


def flags(count: int) -> str:
  """What this process was given, and so many devices."""
  return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
