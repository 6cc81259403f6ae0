"""A student's or unguided network as ONNX, with the steps of DDIM: for runtimes that know no JAX.

    OUT/denoiser.onnx   (x f32[B H W C], t i32, labels i32[B], scale f32) -> (x0, eps), f32[B H W C]
    OUT/steps.json      what it is, and t, alpha_bar and alpha_bar_next of each step

A model without classes takes no labels, one that nothing guides no scale; guidance that needs a
gradient or two evaluations is more than jax2onnx 0.12 can write. A run is a loop of a few lines in
any language: from standard normal x, at each step

    x0, eps = denoiser(x, t, labels, scale)
    x = sqrt(alpha_bar_next) * x0 + sqrt(1 - alpha_bar_next) * eps
"""

import contextlib
import dataclasses
import io
import json
import logging
import pathlib
from typing import Any, Callable, Iterator

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from adm_jax.devices.target import ANY, tracing_for
from adm_jax.errors import UsageError, one_line
from adm_jax.io import extras
from adm_jax.io.files import folder_written_whole
from adm_jax.sampling.pipeline import Pipeline

Array = jax.Array
DENOISER, STEPS = 'denoiser.onnx', 'steps.json'
_MOST_BYTES = 2**31 - 2**23  # of a protobuf, less what is not weights


def check(out: pathlib.Path) -> None:
  """What can be said before a model is loaded.

  Raises:
    UsageError: `out` exists, or jax2onnx is not installed.
  """
  if out.exists():
    raise UsageError(f'{out} exists: give the name of a new folder')
  try:
    with _quiet():
      import jax2onnx  # noqa: F401
  except ImportError as error:
    raise UsageError(f'exporting to ONNX needs {error.name}: {extras.command("onnx")}') from error


def save(adm: Pipeline, out: str | pathlib.Path, batch_size: int = 1) -> None:
  """Writes the folder, which appears when it is whole.

  Args:
    adm: the run, by DDIM without noise.
    out: a new folder.
    batch_size: how many images at once; part of the program.

  Raises:
    UsageError: as `check` and `exported`.
  """
  out = pathlib.Path(out)
  check(out)
  model, described = exported(adm, batch_size)
  with folder_written_whole(out) as part:
    write(part, model, described)


def write(folder: pathlib.Path, model: bytes, described: dict[str, Any]) -> None:
  (folder / DENOISER).write_bytes(model)
  (folder / STEPS).write_text(json.dumps(described, indent=1))


def exported(adm: Pipeline, batch_size: int = 1) -> tuple[bytes, dict[str, Any]]:
  """Returns the ONNX model of a run, and what is said of it: the contents of both files.

  Raises:
    UsageError: a run of another solver, of several scales, or with an operation or a JAX that
      jax2onnx does not know.
  """
  _check_run(adm)
  function, inputs = denoiser(adm, batch_size)
  steps = adm.sampler.steps
  places = zip(*map(np.asarray, (steps.t, steps.alpha_bar, steps.alpha_bar_next)), strict=True)
  described = {
      **adm.description, 'shape': adm.sampler.shape, 'num_classes': adm.num_classes,
      'class_names': adm.class_names and [names[0] for names in adm.class_names],
      'batch_size': batch_size, 'inputs': list(inputs), 'outputs': ['x0', 'eps'],
      'scale': _exported_scale(adm), 'scales': adm.run.model.network.scales,
      'steps': [dict(t=int(t), alpha_bar=float(here), alpha_bar_next=float(there))
                for t, here, there in places]}
  return _converted(function, inputs).SerializeToString(), described


def denoiser(adm: Pipeline, batch_size: int) -> tuple[Callable, dict[str, jax.ShapeDtypeStruct]]:
  """Returns the function that is exported, and its arguments' shapes by their names."""
  network = dataclasses.replace(adm.sampler, mesh=None).denoiser
  weights, known = jax.tree.map(np.asarray, adm.weights), adm.params['scales']
  inputs = {'x': jax.ShapeDtypeStruct((batch_size, *adm.sampler.shape), jnp.float32),
            't': jax.ShapeDtypeStruct((), jnp.int32)}
  if adm.num_classes is not None:
    inputs['labels'] = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
  if known:
    inputs['scale'] = jax.ShapeDtypeStruct((), jnp.float32)

  def denoise(*given):
    named = dict(zip(inputs, given, strict=True))
    scales = {role: dataclasses.replace(scale, values=jnp.where(
        np.asarray(scale.values) != scale.off, named['scale'], scale.values))
        for role, scale in known.items()}
    with tracing_for(ANY):
      prediction = network({**weights, 'scales': scales}, named.get('labels'))(
          named['x'], named['t'])
    return prediction.x0, prediction.eps
  return denoise, inputs


def _check_run(adm: Pipeline) -> None:
  if adm.low_res_shape is not None:
    raise UsageError('an upsampler cannot be exported: export the model before it')
  solver = adm.sampler.solver
  if solver.name != 'ddim' or not solver.deterministic:
    raise UsageError(f'ONNX gets the denoiser alone, for the loop of DDIM without noise: give '
                     f'--solver ddim instead of {solver.name}, and no --eta')
  if len(adm.params['scales']) > 1:
    raise UsageError('the exported denoiser has one scale: guide it in one way')
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(adm.weights))
  if size > _MOST_BYTES:
    raise UsageError(f'the weights have {size / 1e9:.2f} GB, and a file of ONNX holds at most '
                     f'{_MOST_BYTES / 1e9:.2f}: use StableHLO, adm export without --to')


def _exported_scale(adm: Pipeline) -> float | None:
  """The scale that the run has where it guides."""
  for scale in adm.params['scales'].values():
    values = np.asarray(scale.values)
    guiding = np.unique(values[values != scale.off])
    if len(guiding) > 1:
      raise UsageError('the exported denoiser has one scale: give one that is the same at all '
                       'steps')
    return float(guiding[0]) if len(guiding) else scale.off
  return None


def _converted(function: Callable, inputs: dict[str, jax.ShapeDtypeStruct]) -> Any:
  """The ONNX model of a function."""
  # Traced here: while jax2onnx traces, it has functions of JAX's replaced by its own.
  traced = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(function)(*inputs.values()))
  with _quiet():
    import jax2onnx
    try:
      return jax2onnx.to_onnx(lambda *given: tuple(traced(*given)), list(inputs.values()),
                              model_name='denoiser', input_names=list(inputs),
                              output_names=['x0', 'eps'])
    except AttributeError as error:  # of what JAX has no more
      raise UsageError(f'the jax2onnx that is installed does not know JAX {jax.__version__} '
                       f'({one_line(error, 100)}): use one with JAX 0.10') from error
    except NotImplementedError as error:
      raise UsageError(f'jax2onnx cannot write this run ({one_line(error, 100)}): export a '
                       'student, or leave out the guidance') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """jax2onnx tells its own diagnostics, also of plugins for versions of JAX that are not here."""
  before = logging.root.manager.disable
  logging.disable(logging.CRITICAL)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.disable(before)
