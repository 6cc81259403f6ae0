"""ADM end to end on the embedded digits, in minutes: train, guide, look, measure."""

import dataclasses
import json
import math
import pathlib
import time
from typing import Any, Callable

import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.configs import digits_classifier, digits_unet
from adm_jax.data.digits import digits
from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError
from adm_jax.evaluation.frechet import frechet_distance, moments
from adm_jax.evaluation.independent_classifier import IndependentClassifier
from adm_jax.io import digests, markdown, pictures
from adm_jax.io.files import written_whole
from adm_jax.io.pixels import to_float
from adm_jax.process import likelihood
from adm_jax.process.diffusion import denoiser, respaced
from adm_jax.sampling import pipeline, solvers
from adm_jax.sampling import sampler as sampling
from adm_jax.sampling.guidance import ByClassifier, ClassifierFree
from adm_jax.sampling.jobs import SamplingJob
from adm_jax.sampling.steps import ascend, descend
from adm_jax.training import checkpoints
from adm_jax.training.loop import MAY_CHANGE, train
from adm_jax.weights import checkpoint_files, folders, shipped

_OUTPUTS = ('report.md', 'samples.png', 'samples_guided.npz', 'samples_unguided.npz')

# bar(total, title) is a context that gives advance(count, note='').
Bar = Callable[[int, str], Any]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the demo does after training.

  Attributes:
    num: images in each of the two sets, guided and unguided; class i % 10 is asked of image i.
    respacing: steps of ancestral sampling.
    scale: of the classifier's gradient.
    batch_size: of sampling.
    seed: of the noise that both sets start from.
    likelihood_images: held-out digits in the bound on the likelihood.
    likelihood_respacing: its process.
    encoded: held-out digits that are encoded and decoded again.
    encoding_respacing: steps of that.
    first_rows: images of each class in the first picture; 0: none is drawn.
  """
  num: int = 500
  respacing: str = '50'
  scale: float = 2.0
  batch_size: int = 250
  seed: int = 0
  likelihood_images: int = 60
  likelihood_respacing: str = '100'
  encoded: int = 16
  encoding_respacing: str = '250'
  first_rows: int = 3

  def __post_init__(self):
    for name in ('num', 'batch_size', 'likelihood_images', 'encoded'):
      least = 10 if name == 'num' else 1  # an image per class
      if getattr(self, name) < least:
        raise UsageError(f'{name}={getattr(self, name)}: give at least {least}')
    if not math.isfinite(self.scale):
      raise UsageError(f'scale={self.scale}: give a finite number')
    pipeline.check_seed(self.seed)


def first_picture(out: pathlib.Path, name: str = shipped.FIRST, *, rows: int,
                  steps: int = 20) -> pathlib.Path:
  """Draws images of a model that comes with the package, a class a column; returns the picture.

  What is there already is not drawn again.

  Args:
    out: a folder; the images are a job in OUT/NAME, the picture is OUT/NAME.png.
    name: of the model.
    rows: images of each class.
    steps: of DPM-Solver++(2M), as Karras et al. space them: it is to be there at once.
  """
  adm = pipeline.load(name, guidance=(ClassifierFree(shipped.sampling(name).cfg_scale),),
                      solver='dpm++2m', steps=steps, spacing='karras')
  path = out / f'{name}.png'
  made = SamplingJob(adm, num=rows * adm.num_classes, classes=range(adm.num_classes)).write(
      out / name)
  if not path.exists():
    pictures.write_grid(path, made.images, made.labels, made.class_names, columns=adm.num_classes)
  return path


def run(out: pathlib.Path, settings: Settings, bar: Bar, unet_overrides: tuple[str, ...] = (),
        classifier_overrides: tuple[str, ...] = (),
        say: Callable[[str], None] = lambda line: None) -> str:
  """Runs what has not been run yet, and returns the report's text.

  Args:
    out: the folder for all that it writes.
    settings: see there.
    bar: progress bars.
    unet_overrides: overrides of `configs/digits_unet.py`, as on the command line.
    classifier_overrides: of `configs/digits_classifier.py`.
    say: gets a line for each picture on the way.
  """
  configs = {
      'unet': config_lib.override(digits_unet.get_config(), list(unet_overrides)),
      'classifier': config_lib.override(digits_classifier.get_config(), list(classifier_overrides)),
  }
  stamp = _stamp(settings, configs)
  report = out / 'report.md'
  if all((out / name).exists() for name in _OUTPUTS) and stamp in report.read_text():
    return report.read_text()

  _check(out, settings, configs)
  if settings.first_rows:
    say(f'picture: {first_picture(out, rows=settings.first_rows)}')
  start = time.monotonic()
  for name, config in configs.items():
    _train(out / name, config, bar, title=f'training the {name}')
  trained = time.monotonic() - start
  report.unlink(missing_ok=True)  # it must not lie beside samples that it is not about
  results = _measure(out, settings, bar)
  text = _report(results, settings, trained, time.monotonic() - start, stamp)
  with written_whole(report) as part:
    part.write_text(text)
  return text


def _check(out: pathlib.Path, settings: Settings, configs: dict) -> None:
  """Refuses what cannot end well, before minutes of training."""
  runs = {}
  for name, config in configs.items():
    try:
      runs[name] = config_lib.build(config)
      checkpoints.check_workdir((out / name).absolute(), stored_configs.to_json(config), MAY_CHANGE)
    except UsageError as error:
      raise UsageError(f'{name}: {error}') from error
  unet, classifier = (runs[name].task.network for name in ('unet', 'classifier'))
  if unet.num_classes is not None:
    raise UsageError('unet: task.network.module.num_classes is set, but the demo guides an '
                     'unconditional network: leave it None')
  if unet.diffusion.schedule != classifier.diffusion.schedule:
    raise UsageError('the unet and the classifier have different schedules: the classifier must '
                     'know the noise it is to guide through, so change both')
  for spec in (settings.respacing, settings.likelihood_respacing, settings.encoding_respacing):
    respaced(unet.diffusion, spec)
  out.mkdir(parents=True, exist_ok=True)


def _stamp(settings: Settings, configs: dict) -> str:
  """Names everything that the report depends on."""
  content = [json.dumps(dataclasses.asdict(settings)),
             *map(stored_configs.to_json, configs.values())]
  return digests.short('\n'.join(content))


def _train(workdir: pathlib.Path, config: config_lib.ConfigDict, bar: Bar, title: str) -> None:
  run = config_lib.build(config)
  with bar(run.total_steps, title) as advance:
    shown = 0
    def progress(step, line):
      nonlocal shown
      advance(step - shown, ', '.join(f'{name.split("_")[0]} {line[name]:.3f}'
                                      for name in ('loss', 'accuracy_top1') if name in line))
      shown = step
    train(run, stored_configs.to_json(config), workdir, progress=progress)


def _measure(out: pathlib.Path, settings: Settings, bar: Bar) -> dict[str, Any]:
  """Samples, writes the .npz files and the picture, and returns every number of the report."""
  unet, classifier = (folders.load(out / name) for name in ('unet', 'classifier'))
  train_set, held_out = digits('train'), digits('held_out')
  judge = IndependentClassifier(train_set.images, train_set.labels)
  labels = np.arange(settings.num, dtype=np.int32) % len(train_set.class_names)

  samples = {}
  for name, guidance in (('unguided', ()),
                         ('guided', (ByClassifier(classifier, settings.scale),))):
    adm = pipeline.load(unet, guidance=guidance, steps=settings.respacing)
    with bar(settings.num * adm.sampler.num_steps, f'sampling {name}') as advance:
      batches = adm.batches(settings.num, settings.seed, labels if guidance else None,
                            batch_size=settings.batch_size, progress=advance)
      samples[name] = np.concatenate(list(batches))
    with written_whole(out / f'samples_{name}.npz') as part:
      np.savez(part, samples[name], labels.astype(np.int64))  # arr_0, arr_1: as published samples
  picture = _picture(train_set, samples, labels, settings)
  with written_whole(out / 'samples.png') as part:
    picture.save(part)

  real = moments(judge.features(held_out.images))

  def distance(images: np.ndarray) -> float:
    return frechet_distance(moments(judge.features(images)), real)

  return {
      'judge': judge.accuracy(held_out.images, held_out.labels),
      'agreement': {name: judge.accuracy(images, labels) for name, images in samples.items()},
      'frechet': {'training digits': distance(train_set.images),
                  **{name: distance(images) for name, images in samples.items()}},
      'bits': _bits_through_training(out / 'unet', held_out, settings, bar),
      'rms': _encode_and_decode(unet, held_out, settings, bar),
      'weights': f'{unet.weights} at step {unet.step}',
  }


def _picture(real: ArraySource, samples: dict[str, np.ndarray], labels: np.ndarray,
             settings: Settings):
  """Real, unguided and guided images side by side; a row per digit for real and guided."""
  classes = range(len(real.class_names))
  columns = min(8, settings.num // len(classes))
  def rows(images, of_class):
    chosen = [np.flatnonzero(of_class == digit)[:columns] for digit in classes]
    return pictures.grid(images[np.concatenate(chosen)], columns, scale=5, gap=2)
  return pictures.side_by_side({
      'real': rows(real.images, real.labels),
      'unguided': rows(samples['unguided'], labels),
      f'guided (scale {settings.scale:g}), same noise': rows(samples['guided'], labels)},
      row_names=real.class_names)


def _bits_through_training(workdir: pathlib.Path, held_out: ArraySource, settings: Settings,
                           bar: Bar) -> dict[int, float]:
  """Bits per dimension of held-out digits at each checkpoint that is still there."""
  steps = checkpoint_files.saved_steps(workdir)
  x0 = to_float(held_out.images[:settings.likelihood_images])
  network = folders.load(workdir).network
  process = respaced(network.diffusion, settings.likelihood_respacing)
  keys = sampling.image_keys(jax.random.key(settings.seed), np.arange(len(x0)))

  @jax.jit
  def bound(params):
    def evaluate(x, time):
      return network.apply(params, x, time)
    noise = sampling.noise_from_keys(keys, x0.shape[1:])
    return likelihood.bits_per_dimension(process, denoiser(process, evaluate), x0, noise).total

  bits = {}
  with bar(len(steps), 'bits per dimension') as advance:
    for step in steps:
      bits[step] = float(bound(folders.load(workdir, step=step).params).mean())
      advance(1)
  return bits


def _encode_and_decode(unet: folders.Trained, held_out: ArraySource, settings: Settings,
                       bar: Bar) -> float:
  """rms of x_0 after DDIM up to the noisiest step and back; x_0 in [-1, 1]."""
  x0 = to_float(held_out.images[:settings.encoded])
  process = respaced(unet.network.diffusion, settings.encoding_respacing)
  make = sampling.GuidedNetwork(unet.network, process)
  keys = sampling.image_keys(jax.random.key(0), np.arange(len(x0)))  # DDIM draws no noise
  x = x0
  ways = (ascend(process.schedule), descend(process.schedule))
  with bar(sum(len(steps.t) for steps in ways) * len(x0), 'encoding and decoding') as advance:
    for steps in ways:
      sampler = sampling.Sampler(make, solvers.ddim(), steps, unet.network.image_shape)
      x = sampler({'model': unet.params}, keys, x=x)
      advance(len(steps.t) * len(x0))
  return float(np.sqrt(np.mean(np.square(x - x0))))


def _report(results: dict[str, Any], settings: Settings, trained: float, total: float,
            stamp: str) -> str:
  agreement, frechet, bits = (results[key] for key in ('agreement', 'frechet', 'bits'))
  base = frechet['training digits']
  course = ', '.join(f'{value:.2f} at step {step}' for step, value in bits.items())
  rows = [
      ('the judge names held-out real digits correctly', f'{results["judge"]:.1%}'),
      ('guided samples that the judge gives the asked class', f'{agreement["guided"]:.1%}'),
      ('unguided samples from the same noise (by chance 10 %)', f'{agreement["unguided"]:.1%}'),
      ('Frechet distance to held-out digits: the training digits', f'{base:.2f}'),
      ('... unguided samples',
       f'{frechet["unguided"]:.2f} ({frechet["unguided"] / base:.1f} x the training digits)'),
      ('... guided samples, all classes together', f'{frechet["guided"]:.2f}'),
      ('bits per dimension of held-out digits (a uniform guess: 8)', course),
      (f'rms error after encoding and decoding {settings.encoded} digits, x in [-1, 1]',
       f'{results["rms"]:.4f}'),
  ]
  lines = [
      '# ADM on 8 x 8 digits', '',
      f'{settings.num} images per set, {settings.respacing} ancestral steps, classifier scale '
      f'{settings.scale:g}, average of the weights: {results["weights"]}.', '',
      markdown.table(('what', 'measured'), rows), '',
      'The judge is a perceptron that has only seen real training digits; distances are in its '
      'last hidden layer (they are not FID). The bound on the likelihood is over '
      f'{settings.likelihood_images} held-out digits and {settings.likelihood_respacing} steps; '
      f'encoding and decoding are DDIM, {settings.encoding_respacing} steps each.', '',
      f'Training took {trained:.0f} s, everything {total:.0f} s, on one '
      f'{jax.devices()[0].device_kind}.', '',
      f'<!-- {stamp} -->', '']
  return '\n'.join(lines)
