"""Models that come with the package: small ones, trained on real photographs.

Each is a folder of converted weights (`weights.folders`), stored in bfloat16, with the names of its
classes, a model card, and the checksums of all but the card, as `sha256sum` writes them.
"""

import dataclasses
import hashlib
import importlib.resources
import json
import pathlib

from adm_jax.errors import UsageError

FIRST = 'fashion'  # where no model is named
_CARD, _CHECKSUMS, _SAMPLING = 'card.md', 'sha256.txt', 'sampling.json'


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a shipped model's images are best sampled.

  Attributes:
    cfg_scale: of classifier-free guidance; 1 is none.
    respacing: the steps to take.
  """
  cfg_scale: float
  respacing: str


def names() -> list[str]:
  """The names of all shipped models."""
  root = _root()
  return sorted(path.name for path in root.iterdir() if (path / _CARD).is_file()) if (
      root.is_dir()) else []


def that_sample() -> list[str]:
  """The names of those that make images."""
  return [name for name in names() if (folder(name) / _SAMPLING).is_file()]


def folder(name: str) -> pathlib.Path:
  """The folder of a shipped model."""
  return _root() / name


def check(folder: pathlib.Path) -> None:
  """Compares the files of a shipped model's folder with their checksums: 3 MB take 2 ms.

  Raises:
    UsageError: one is absent or another than it was; it names the file.
  """
  if not (folder / _CHECKSUMS).is_file():
    raise UsageError(f'{folder / _CHECKSUMS} is absent: install adm_jax again')
  for line in (folder / _CHECKSUMS).read_text().splitlines():
    wanted, _, name = line.partition('  ')
    path = folder / name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
      raise UsageError(f'{path} is not the file that came with the package: install adm_jax again')


def sampling(name: str) -> Sampling:
  """How the images of a shipped model that makes some are best sampled."""
  return Sampling(**json.loads((folder(name) / _SAMPLING).read_text()))


def write_checksums(folder: pathlib.Path) -> None:
  """Writes what `check` compares, of all files in `folder` but the card."""
  names = sorted({path.name for path in folder.iterdir()} - {_CARD, _CHECKSUMS})
  (folder / _CHECKSUMS).write_text(''.join(
      f'{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n' for name in names))


def card(name: str) -> str:
  """What its model card says."""
  return (folder(name) / _CARD).read_text()


def _root() -> pathlib.Path:
  return pathlib.Path(str(importlib.resources.files('adm_jax.weights'))) / 'shipped'
