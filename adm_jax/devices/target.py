"""Which devices a program is traced for: what the networks choose their alternatives by.

    with tracing_for(of(mesh.devices.flat[0])):
      ...  # here `current()` says so, whatever devices this machine has

A program may be compiled for devices that are not here (`adm plan`), or for several kinds at once
(`adm export`), so that `jax.devices()[0]` would be the wrong one to ask.
"""

import contextlib
import contextvars
import dataclasses
import re
from typing import Any, Iterator

import jax

from adm_jax.devices import gpus


@dataclasses.dataclass(frozen=True)
class Target:
  """A kind of device.

  Attributes:
    platform: 'cpu', 'gpu' or 'tpu'; None where it may be any of them.
    compute_capability: of NVIDIA's GPUs, as 9.0; None of others, and where it is not known.
  """
  platform: str | None
  compute_capability: float | None = None


ANY = Target(None)
_current: contextvars.ContextVar[Target | None] = contextvars.ContextVar('target', default=None)
_plain: contextvars.ContextVar[bool] = contextvars.ContextVar('plain', default=False)


def of(device: Any) -> Target:
  """The kind of a device, present or described (`jax.experimental.topologies`)."""
  # AMD's are called 'gfx90a' and the like; a device that is not here does not say it.
  capability = str(getattr(device, 'compute_capability', None)
                   or gpus.compute_capability(device.device_kind))
  nvidia = device.platform == 'gpu' and re.fullmatch(r'\d+\.\d+', capability)
  return Target(device.platform, float(capability) if nvidia else None)


def current() -> Target:
  """What the program that is being traced is for: by default JAX's first device."""
  return ANY if _plain.get() else _current.get() or of(jax.devices()[0])


@contextlib.contextmanager
def tracing_for(target: Target) -> Iterator[None]:
  """While a program is traced for `target`: `current` says so."""
  token = _current.set(target)
  try:
    yield
  finally:
    _current.reset(token)


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
  """While a program is traced to be counted: `current` is `ANY`, whatever the program says."""
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)
