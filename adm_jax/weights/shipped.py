"""Models that come with the package: small ones, trained on real photographs.

Each is a folder of converted weights (`weights.folders`), stored in bfloat16, with the names of its
classes and a model card.
"""

import importlib.resources
import pathlib

_CARD = 'card.md'


def names() -> list[str]:
  """The names of all shipped models."""
  root = _root()
  return sorted(path.name for path in root.iterdir() if (path / _CARD).is_file()) if (
      root.is_dir()) else []


def folder(name: str) -> pathlib.Path:
  """The folder of a shipped model."""
  return _root() / name


def card(name: str) -> str:
  """What its model card says."""
  return (folder(name) / _CARD).read_text()


def _root() -> pathlib.Path:
  return pathlib.Path(str(importlib.resources.files('adm_jax.weights'))) / 'shipped'
