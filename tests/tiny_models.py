"""Folders of small networks that make 8 x 8 images, to sample by path."""

import pathlib

import jax
import numpy as np
from golden_networks import rule_params

from adm_jax import config as config_lib
from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import Classifier, Judge, SuperRes, UNet
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, FixedSmall, LearnedRange, V
from adm_jax.weights import folders

NUM_CLASSES = 5
_TRUNK = dict(channels=32, channel_mult=(1,), depth=1, attention_resolutions=())


def _diffusion():
  return call(Diffusion, schedule=call(schedules.linear, num_steps=1000), mean=call(Eps),
              variance=call(LearnedRange))


def _save(path: pathlib.Path, network: config_lib.ConfigDict, seed: int) -> pathlib.Path:
  folders.save(path, network, rule_params(config_lib.build(network).module, seed=seed))
  return path


def unet(path: pathlib.Path, num_classes: int | None = None, seed: int = 1,
         with_null_label: bool = False) -> pathlib.Path:
  model = call(UNet, image_size=8, out_channels=6, num_classes=num_classes, num_heads=2, **_TRUNK)
  return _save(path, call(networks.unet, module=model, diffusion=_diffusion(),
                          with_null_label=with_null_label), seed)


def student(path: pathlib.Path, steps: tuple[int, ...] | None = (2, 4)) -> pathlib.Path:
  """Of a `unet` with classes, for scales from 0 to 4; steps: None after the first stage."""
  model = call(UNet, image_size=8, out_channels=3, num_classes=NUM_CLASSES, num_heads=2,
               takes_scale=True, **_TRUNK)
  diffusion = call(Diffusion, schedule=call(schedules.linear, num_steps=1000), mean=call(V),
                   variance=call(FixedSmall))
  network = call(networks.student, module=model, diffusion=diffusion, scales=(0.0, 4.0),
                 steps=steps)
  params = jax.jit(config_lib.build(network).init)(jax.random.key(5))
  noise = np.random.default_rng(5).normal
  # A fresh network's last layers are zeros, and it would be deaf to the scale.
  folders.save(path, network, jax.tree.map(lambda leaf: leaf + 0.1 * noise(size=leaf.shape).astype(
      np.float32), params))
  return path


def classifier(path: pathlib.Path, image_size: int = 8,
               num_classes: int = NUM_CLASSES) -> pathlib.Path:
  model = call(Classifier, image_size=image_size, num_classes=num_classes, head_channels=32,
               **_TRUNK)
  return _save(path, call(networks.classifier, module=model, diffusion=_diffusion()), 2)


def judge(path: pathlib.Path, num_classes: int = NUM_CLASSES) -> pathlib.Path:
  """Not trained, but its answers differ from image to image."""
  model = call(Judge, num_classes=num_classes, channels=(8, 8), features=6)
  network = call(networks.Network, module=model, image_shape=(8, 8, 3), num_classes=num_classes,
                 diffusion=call(Diffusion, schedule=call(schedules.linear, num_steps=1)),
                 classifies=True)
  folders.save(path, network, jax.jit(config_lib.build(network).init)(jax.random.key(4)))
  return path


def upsampler(path: pathlib.Path, small: int = 8,
              num_classes: int | None = NUM_CLASSES) -> pathlib.Path:
  model = call(UNet, image_size=16, in_channels=6, out_channels=6, num_classes=num_classes,
               num_heads=2, **_TRUNK)
  return _save(path, call(networks.superres, module=call(SuperRes, unet=model),
                          diffusion=_diffusion(), low_res_size=small), 3)
