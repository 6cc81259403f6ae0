"""Pipelines that are kept: another scale, seed or class compiles nothing, and memory is bounded."""

import collections
import dataclasses
from typing import Any

from adm_jax.sampling import initial_states, pipeline, solvers
from adm_jax.sampling.guidance import ByClassifier, ClassifierFree, Distilled, Guidance
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.sampling.sampler import Sampler
from adm_jax.serving.models import CLASSIFIER, FREE, STUDENT
from adm_jax.serving.words import Words

# Each holds a compiled program for every number of images that it was asked for.
MOST = 32


class Pipelines:
  """The latest pipelines, by what of a visitor's words is part of a program.

  A network is loaded once for each way to guide it. To be used by one thread.
  """

  def __init__(self, most: int = MOST):
    self._most = most
    self._loaded: dict[tuple, Pipeline] = {}
    self._kept: collections.OrderedDict[tuple, Pipeline] = collections.OrderedDict()
    self._ran: dict[tuple, set] = {}
    self._encoders: dict[tuple, Sampler] = {}

  def __call__(self, words: Words) -> Pipeline:
    """Returns the pipeline of `words`."""
    key = _key(words)
    if key not in self._kept:
      self._kept[key] = self._made(words)
      while len(self._kept) > self._most:
        dropped, _ = self._kept.popitem(last=False)
        self._ran.pop(dropped, None)
        self._encoders.pop(dropped, None)
    self._kept.move_to_end(key)
    return self._kept[key].with_guidance(_guidance(words))

  def has(self, words: Words) -> bool:
    """Whether the networks of `words` are loaded."""
    return (words.name, words.guide) in self._loaded

  def is_new(self, words: Words, size: int, adm: Pipeline) -> bool:
    """Whether a batch of `size` will compile."""
    return _program(size, adm) not in self._ran.get(_key(words), ())

  def ran(self, words: Words, size: int, adm: Pipeline) -> None:
    """Notes that a batch of `size` has run: the next compiles nothing."""
    self._ran.setdefault(_key(words), set()).add(_program(size, adm))

  def encoder(self, words: Words) -> Sampler:
    """Returns what encodes images along the steps of `words`' pipeline, which is kept as long."""
    key = _key(words)
    if key not in self._encoders:
      self._encoders[key] = initial_states.encoder(self(words))
    return self._encoders[key]

  def _made(self, words: Words) -> Pipeline:
    steps = str(words.steps) if words.spacing is None else words.steps
    given = ({'eta': words.eta} if words.eta else {})
    course = dict(steps=steps, spacing=words.spacing, solver=solvers.by_name(words.solver, **given))
    networks = words.name, words.guide
    if networks not in self._loaded:
      self._loaded[networks] = pipeline.load(words.name, guidance=_guidance(words), **course)
    # Samplers of its own, so that compiled programs go with it.
    return dataclasses.replace(self._loaded[networks], samplers={}).with_steps(
        course['steps'], spacing=course['spacing'], solver=course['solver'])


def _program(size: int, adm: Pipeline) -> tuple[Any, ...]:
  """What of a call's arguments makes a program of its own."""
  return size, tuple(bound.scales.active for bound in adm.bound if bound.scales is not None)


def _key(words: Words) -> tuple[Any, ...]:
  return (words.name, words.guide, words.solver, words.steps, words.spacing, words.eta)


def _guidance(words: Words) -> tuple[Guidance, ...]:
  if words.guide == CLASSIFIER:
    return (ByClassifier(words.model.classifier, words.scale),)
  if words.guide == FREE:
    return (ClassifierFree(words.scale),)
  return (Distilled(words.scale),) if words.guide == STUDENT else ()
