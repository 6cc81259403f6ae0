"""onnxruntime-web, which runs ONNX in browsers: what WebAssembly needs of npm's package."""

import hashlib
import lzma
import os
import pathlib
import tarfile
import zlib
from typing import Callable

from adm_jax.errors import UsageError, one_line
from adm_jax.io import downloads

VERSION = '1.30.0'
REGISTRY = 'https://registry.npmjs.org'
_TARBALL_BYTES = 33_106_585
_TARBALL_SHA256 = 'd2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71'
# One build serves one thread and many; this package has no other for WebAssembly alone.
FILES = {
    'ort.wasm.min.mjs': '219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b',
    'ort-wasm-simd-threaded.mjs':
        'e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b',
    'ort-wasm-simd-threaded.wasm':
        '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}
_PLACES = ('.', 'dist', 'package/dist')  # in a folder: its files, an installed package, a tarball's
_INSTEAD = (f'name a folder or tarball that has onnxruntime-web {VERSION} with --runtime, or a '
            'mirror with npm_config_registry')


def files(given: pathlib.Path | None, bar: Callable) -> dict[str, bytes]:
  """Returns the contents of `FILES` by their names.

  Args:
    given: npm's tarball, or a folder that has the files, itself or as an installed package; None
      fetches the tarball, once, from npm's registry or that of the variable npm_config_registry.
    bar: as for `downloads.fetch`.

  Raises:
    UsageError: no network, or files that are absent or of another version.
  """
  source = _fetched(bar) if given is None else given
  found = _in_folder(source) if source.is_dir() else _in_tarball(source)
  for name, sha256 in FILES.items():
    if name not in found:
      raise UsageError(f'{source} has no {name}: {_INSTEAD}')
    if hashlib.sha256(found[name]).hexdigest() != sha256:
      raise UsageError(f'{name} in {source} is not that of onnxruntime-web {VERSION}: {_INSTEAD}')
  return found


def _fetched(bar: Callable) -> pathlib.Path:
  # The name that npm itself reads, in small letters or large ones.
  registry = (os.environ.get('npm_config_registry') or os.environ.get('NPM_CONFIG_REGISTRY')
              or REGISTRY)
  address = f'{registry.rstrip("/")}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz'
  return downloads.fetch(f'onnxruntime-web {VERSION}', address, bar, sha256=_TARBALL_SHA256,
                         sizes=range(_TARBALL_BYTES, _TARBALL_BYTES + 1), otherwise=_INSTEAD)


def _in_folder(folder: pathlib.Path) -> dict[str, bytes]:
  places = [folder / place / name for place in _PLACES for name in FILES]
  return {path.name: path.read_bytes() for path in places if path.is_file()}


def _in_tarball(path: pathlib.Path) -> dict[str, bytes]:
  wanted = {f'package/dist/{name}': name for name in FILES}
  try:
    with tarfile.open(path) as tarball:
      return {wanted[member.name]: tarball.extractfile(member).read()
              for member in tarball if member.isfile() and member.name in wanted}
  except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
    raise UsageError(f'{path} cannot be read ({one_line(error)}): {_INSTEAD}') from error
