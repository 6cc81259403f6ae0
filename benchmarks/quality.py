"""How good samples are after how many evaluations, for every solver, on the demo's digits.

  pip install matplotlib
  adm demo --out runs/demo
  python benchmarks/quality.py runs/demo --out runs/quality

All solvers start from the same noise and labels and are guided by the demo's classifier. Distances
are Frechet distances to the held-out digits in the last hidden layer of a perceptron that has only
seen real digits (`evaluation.independent_classifier`): they are not FID. Agreement is the share of
samples to which that perceptron gives the class that was asked. Writes quality.md, quality.json and
quality.png.
"""

import argparse
import json
import pathlib
from typing import Any, Callable, NamedTuple

import numpy as np

from adm_jax.data.digits import digits
from adm_jax.devices import compilation_cache
from adm_jax.evaluation.frechet import frechet_distance, moments
from adm_jax.evaluation.independent_classifier import IndependentClassifier
from adm_jax.sampling import courses, pipeline, solvers, spacings
from adm_jax.sampling.guidance import ByClassifier
from adm_jax.sampling.steps import Step


class Method(NamedTuple):
  """A solver with the spacing that its paper recommends; None walks a respaced schedule."""
  solver: solvers.Solver
  space: Callable | None = None


def churned_karras(schedule, num_steps: int) -> Step:
  """With EDM's churn for ImageNet 64 x 64."""
  return spacings.churned(schedule, spacings.karras(schedule, num_steps), 40, low=0.05, high=50)


METHODS = {
    'ancestral': Method(solvers.ancestral()),
    'DDIM': Method(solvers.ddim(), spacings.by_time),
    'DDIM, trailing': Method(solvers.ddim(), spacings.trailing),
    'Euler': Method(solvers.ddim(), spacings.karras),
    'Heun': Method(solvers.heun(), spacings.karras),
    'Heun, churn 40': Method(solvers.churned(solvers.heun(), 1.003), churned_karras),
    'DPM-Solver++(2S)': Method(solvers.dpm_singlestep(), spacings.by_log_snr),
    'DPM-Solver++(2M)': Method(solvers.dpm_multistep(2), spacings.by_time),
    'DPM-Solver++(2M), log-SNR': Method(solvers.dpm_multistep(2), spacings.by_log_snr),
    'DPM-Solver++(2M), Karras': Method(solvers.dpm_multistep(2), spacings.karras),
    'DPM-Solver++(3M)': Method(solvers.dpm_multistep(3), spacings.by_time),
    'SDE-DPM-Solver++(2M)': Method(solvers.dpm_multistep(2, sde=True), spacings.by_time),
    'UniPC-2': Method(solvers.unipc(2), spacings.by_time),
    'UniPC-3': Method(solvers.unipc(3), spacings.by_time),
}


def load(folder: pathlib.Path, name: str, evaluations: int, scale: float) -> pipeline.Pipeline:
  """The guided model with a method of at most so many evaluations."""
  method = METHODS[name]
  num_steps = (evaluations - 1) // method.solver.evaluations + 1
  # Clipping after guidance leaves ancestral sampling as it is; others need it (`guidance.guided`).
  course = (courses.Course(str(num_steps)) if method.space is None else
            courses.Course('', lambda schedule: method.space(schedule, num_steps)))
  return pipeline.load(
      folder / 'unet', guidance=(ByClassifier(folder / 'classifier', scale, clip=True),),
      solver=method.solver, steps=course)


def measure(folder: pathlib.Path, plan: list[tuple[str, int]], num: int, scale: float,
            seed: int) -> list[dict[str, Any]]:
  """A row for each (method, evaluations)."""
  train, held_out = digits('train'), digits('held_out')
  judge = IndependentClassifier(train.images, train.labels)
  real = moments(judge.features(held_out.images))
  labels = np.arange(num) % len(train.class_names)
  rows = []
  for name, evaluations in plan:
    adm = load(folder, name, evaluations, scale)
    images = adm(labels, seed=seed, chunks=1)
    rows.append({'method': name, 'evaluations': adm.sampler.num_evaluations,
                 'frechet': frechet_distance(moments(judge.features(images)), real),
                 'agreement': judge.accuracy(images, labels)})
    print('{method:28}{evaluations:6}{frechet:10.3f}{agreement:10.1%}'.format(**rows[-1]),
          flush=True)
  return rows


def table(rows: list[dict[str, Any]], budgets: list[int]) -> str:
  """Markdown: a line per method, a column per budget, each cell `distance (agreement)`."""
  cells = {(row['method'], row['budget']): f'{row["frechet"]:.2f} ({row["agreement"]:.0%})'
           for row in rows}
  names = list(dict.fromkeys(row['method'] for row in rows))
  lines = [['method', *map(str, budgets)], ['---'] * (1 + len(budgets)),
           *([name, *(cells.get((name, budget), '') for budget in budgets)] for name in names)]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(1, 2, figsize=(12, 5), layout='constrained')
  for i, name in enumerate(dict.fromkeys(row['method'] for row in rows)):
    of = [row for row in rows if row['method'] == name]
    for axis, what in zip(axes, ('frechet', 'agreement')):
      axis.plot([row['evaluations'] for row in of], [row[what] for row in of], label=name,
                color=pyplot.cm.tab20(i % 20), marker='o', markersize=3)
  axes[0].set(yscale='log', ylabel='Frechet distance to held-out digits (judge, not FID)')
  axes[1].set(ylabel='share of samples that the judge gives the asked class')
  for axis in axes:
    axis.set(xscale='log', xlabel='evaluations per image')
    axis.grid(alpha=0.3)
  axes[0].legend(fontsize=7)
  figure.savefig(path, dpi=120)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('demo', type=pathlib.Path, help="the folder of `adm demo`")
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/quality'))
  parser.add_argument('--num', type=int, default=1000, help='images per cell')
  parser.add_argument('--budgets', default='5,10,20,50', help='evaluations per image, at most')
  parser.add_argument('--reference', type=int, default=250, help='of ancestral sampling')
  parser.add_argument('--scale', type=float, default=2.0, help="of the classifier's gradient")
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--methods', nargs='*', default=list(METHODS), choices=list(METHODS))
  arguments = parser.parse_args()
  compilation_cache.use()
  budgets = [int(word) for word in arguments.budgets.split(',')]
  plan = [('ancestral', arguments.reference),
          *((name, budget) for name in arguments.methods for budget in budgets)]
  rows = measure(arguments.demo, plan, arguments.num, arguments.scale, arguments.seed)
  rows = [{**row, 'budget': budget} for row, (_, budget) in zip(rows, plan)]
  arguments.out.mkdir(parents=True, exist_ok=True)
  text = (f'Frechet distance to held-out digits in the judge\'s features (not FID), and agreement; '
          f'{arguments.num} images per cell, classifier scale {arguments.scale:g}; columns are '
          'evaluations per image, at most.\n\n' + table(rows, [*budgets, arguments.reference]))
  (arguments.out / 'quality.md').write_text(text + '\n')
  (arguments.out / 'quality.json').write_text(json.dumps(rows, indent=1))
  plot(rows, arguments.out / 'quality.png')
  print(f'\n{text}\n\n{arguments.out}/quality.md, .json, .png')


if __name__ == '__main__':
  main()
