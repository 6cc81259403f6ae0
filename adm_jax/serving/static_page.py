"""A student or an unguided network as a page that needs no server but one of files.

    OUT/index.html, page.css, page.js, worker.js   what the browser shows, and the loop of DDIM
    OUT/denoiser.onnx, steps.json                  as `sampling.onnx_export` writes them
    OUT/runtime/                                   onnxruntime-web, which runs the network, and its
                                                   licence

All addresses are relative, and nothing is fetched from elsewhere.
"""

import importlib.resources
import pathlib
from typing import Any, Callable

from adm_jax.errors import UsageError
from adm_jax.io import extras
from adm_jax.io.files import folder_written_whole
from adm_jax.sampling import onnx_export
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.serving import onnxruntime_web

RUNTIME = 'runtime'
# npm's package has none; that of Python, by the same makers, does.
_TERMS = ('LICENSE', 'ThirdPartyNotices.txt')


def check(out: pathlib.Path, runtime: pathlib.Path | None, bar: Callable) -> dict[str, bytes]:
  """What can be said before a model is loaded.

  Args:
    out: a new folder.
    runtime, bar: as for `onnxruntime_web.files`.

  Returns:
    The runtime's files.

  Raises:
    UsageError: as `onnx_export.check`, and where there is no onnxruntime for Python, whose licence
      the runtime has, or none for browsers.
  """
  onnx_export.check(out)
  _onnxruntime()
  return onnxruntime_web.files(runtime, bar)


def save(adm: Pipeline, out: str | pathlib.Path, runtime: dict[str, bytes]) -> None:
  """Writes the folder, which appears when it is whole.

  Args:
    adm: the run, by DDIM without noise.
    out: a new folder.
    runtime: the files that `check` returns.

  Raises:
    UsageError: as `onnx_export.save`, or images that are neither gray nor RGB.
  """
  out = pathlib.Path(out)
  onnx_export.check(out)
  channels = adm.sampler.shape[-1]
  if channels not in (1, 3):
    raise UsageError(f'a page shows gray or RGB images, and these have {channels} channels: use '
                     '--to onnx, and show them yourself')
  if adm.params['scales'] and adm.run.model.network.scales is None:
    raise UsageError('a page guides by the scale that a student was taught, and this model was '
                     'taught none: leave out its guidance, or use --to onnx')
  model, described = onnx_export.exported(adm)
  with folder_written_whole(out) as part:
    onnx_export.write(part, model, _public(described))
    for page in (importlib.resources.files('adm_jax.serving') / 'static').iterdir():
      (part / page.name).write_bytes(page.read_bytes())
    _write_runtime(part / RUNTIME, runtime)


def _write_runtime(folder: pathlib.Path, runtime: dict[str, bytes]) -> None:
  folder.mkdir()
  for name in _TERMS:
    (folder / name).write_bytes((_onnxruntime() / name).read_bytes())
  for name, content in runtime.items():
    # Many servers do not know .mjs, and a browser takes no script of an unknown type.
    (folder / name.replace('.mjs', '.js')).write_bytes(content)


def _onnxruntime() -> 'importlib.resources.abc.Traversable':
  try:
    return importlib.resources.files('onnxruntime')
  except ImportError as error:
    raise UsageError(f'a page needs {error.name}: {extras.command("onnx")}') from error


def _public(described: dict[str, Any]) -> dict[str, Any]:
  """The description without the path of this machine that a model may be named by."""
  model = described['model']
  return {**described, 'model': {**model, 'name': pathlib.PurePath(model['name']).name},
          'runtime': f'onnxruntime-web {onnxruntime_web.VERSION}'}
