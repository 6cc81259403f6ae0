"""What pip is told, so that an extra of this package is installed as the package itself was."""

import importlib.metadata
import json
import pathlib
import shlex
import urllib.parse
import urllib.request
from typing import Any

_PACKAGE = 'adm_jax'


def command(extra: str) -> str:
  """Returns the command that installs an extra: from the same clone, wheel or index."""
  return f'pip install {shlex.quote(_requirement(extra, _direct_url()))}'


def _direct_url() -> str:
  """The address that the package was installed from; '' where pip looked it up by its name."""
  try:
    text = importlib.metadata.distribution(_PACKAGE).read_text('direct_url.json')
  except importlib.metadata.PackageNotFoundError:
    return ''
  return _address(json.loads(text)) if text else ''


def _address(noted: dict[str, Any]) -> str:
  """What pip takes for an address that it noted in direct_url.json: of git at its commit."""
  of_repository = noted.get('vcs_info')
  if of_repository is None:
    return noted['url']
  return f'{of_repository["vcs"]}+{noted["url"]}@{of_repository["commit_id"]}'


def _requirement(extra: str, address: str) -> str:
  named = f'{_PACKAGE}[{extra}]'
  parts = urllib.parse.urlparse(address)
  path = pathlib.Path(urllib.request.url2pathname(parts.path))
  if parts.scheme == 'file' and path.is_dir():
    return f'{path}[{extra}]'
  if parts.scheme and (parts.scheme != 'file' or path.exists()):
    return f'{named} @ {address}'
  return named
