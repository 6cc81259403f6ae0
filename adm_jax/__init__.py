"""ADM in JAX: *Diffusion Models Beat GANs on Image Synthesis* (Dhariwal & Nichol, 2021).

    import adm_jax
    adm = adm_jax.load('runs/demo/unet', steps=100,
                       guidance=(adm_jax.guidance.ByClassifier('runs/demo/classifier', scale=2.0),))
    images = adm(labels=range(10), seed=0)  # uint8 [10, 8, 8, 1]

What is named here is imported when it is first used: importing the package takes no time.
"""

import importlib
from typing import Any

__version__ = '0.2.0'

# The public face: name -> the module that has it, or is it.
_PUBLIC = {
    'load': 'adm_jax.sampling.pipeline',
    'Pipeline': 'adm_jax.sampling.pipeline',
    'SamplingJob': 'adm_jax.sampling.jobs',
    'Network': 'adm_jax.networks',
    'UsageError': 'adm_jax.errors',
    'guidance': 'adm_jax.sampling.guidance',
    'solvers': 'adm_jax.sampling.solvers',
    'spacings': 'adm_jax.sampling.spacings',
}

__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(_PUBLIC[name])
  value = module if module.__name__.endswith(f'.{name}') else getattr(module, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_PUBLIC})
