"""Draws a shipped model, unguided and guided from the same noise, in docs/NAME.png.

    python benchmarks/gallery.py [NAME] [--scale S] [--columns N] [--out FILE.png]
"""

import argparse
import pathlib

import numpy as np

from adm_jax.io import pictures
from adm_jax.sampling import pipeline
from adm_jax.sampling.guidance import ClassifierFree
from adm_jax.weights import shipped


def panels(name: str, scale: float, columns: int, respacing: str) -> tuple[dict, tuple[str, ...]]:
  """({title: uint8[H W 3]}, the names of the classes), a class a row."""
  adm = pipeline.load(name, guidance=(ClassifierFree(scale),), steps=respacing)
  labels = np.repeat(np.arange(adm.num_classes), columns)
  scales = {'unguided': 1.0, f'guided (scale {scale:g}), same noise': scale}
  found = {title: adm(labels, seed=0, scale=value) for title, value in scales.items()}
  names = tuple(name for name, *_ in adm.class_names)
  return {title: pictures.grid(images, columns, scale=2, gap=2)
          for title, images in found.items()}, names


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('name', nargs='?', default=shipped.FIRST, choices=shipped.that_sample())
  parser.add_argument('--scale', type=float, help='default: the best of the model')
  parser.add_argument('--columns', type=int, default=6)
  parser.add_argument('--out', type=pathlib.Path)
  arguments = parser.parse_args()
  best = shipped.sampling(arguments.name)
  found, names = panels(arguments.name, arguments.scale or best.cfg_scale, arguments.columns,
                        best.respacing)
  out = arguments.out or pathlib.Path(__file__).parents[1] / 'docs' / f'{arguments.name}.png'
  pictures.side_by_side(found, row_names=names).save(out, optimize=True)
  print(out)


if __name__ == '__main__':
  main()
