"""Every published model: what it is, where it lies, and how the paper sampled it.

Addresses, flags and sizes are those that the original repositories publish; the paper's rows are
from its tables 4, 5, 6 and 16. Of the hashes only one is public.
"""

import dataclasses
import difflib
import pathlib
from typing import Callable

from adm_jax.errors import UsageError
from adm_jax.io import downloads

_ADM = 'https://openaipublic.blob.core.windows.net/diffusion/jul-2021/'
_IDDPM = 'https://openaipublic.blob.core.windows.net/diffusion/march-2021/'
LICENSE = 'code MIT; weights for research, see the model card of openai/guided-diffusion'


@dataclasses.dataclass(frozen=True)
class Model:
  """A published checkpoint.

  Attributes:
    name: short, for commands.
    kind: 'unet', 'superres' or 'classifier'.
    flags: the reference's (`weights.flags`).
    address: of the file.
    parameters: how many values it holds.
    file_bytes: its exact size, where known; else it is a little more than 4 x `parameters`.
    sha256: where known.
    classifier: the name of the model that guides it, if one is published.
    scale: of the classifier's gradient in the paper, with `respacing`.
    respacing: how the paper sampled it.
    paper: its row there.
  """
  name: str
  kind: str
  flags: str
  address: str
  parameters: int
  file_bytes: int | None = None
  sha256: str | None = None
  classifier: str | None = None
  scale: float | None = None
  respacing: str = '250'
  paper: str = ''

  @property
  def least_bytes(self) -> int:
    """What its tensors alone take in the file."""
    return 4 * self.parameters


_TRUNK = '--learn_sigma True --resblock_updown True --use_scale_shift_norm True '
_WIDE = (_TRUNK + '--attention_resolutions 32,16,8 --num_channels 256 --num_res_blocks 2 '
         '--noise_schedule linear ')
_LSUN = _WIDE + '--image_size 256 --class_cond False --num_head_channels 64 '
_UPSAMPLER = (_TRUNK + '--num_channels 192 --num_res_blocks 2 --noise_schedule linear '
              '--class_cond True ')
_OLD = '--learn_sigma True --noise_schedule cosine --diffusion_steps 4000 --num_res_blocks 3 '
_RESCALED = _OLD + '--rescale_timesteps True --rescale_learned_sigmas True '
_OLD_LSUN = ('--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 '
             '--learn_sigma True --use_scale_shift_norm False --attention_resolutions 16 '
             '--noise_schedule linear ')
_SWEPT = '90,60,60,20,20'

_ALL = (
    Model('imagenet64', 'unet',
          _TRUNK + '--attention_resolutions 32,16,8 --image_size 64 --class_cond True '
          '--dropout 0.1 --noise_schedule cosine --num_channels 192 --num_head_channels 64 '
          '--num_res_blocks 3 --use_new_attention_order True',
          _ADM + '64x64_diffusion.pt', 295_904_454, classifier='imagenet64-classifier', scale=1.0,
          paper='table 5: ADM (dropout) FID 2.07'),
    Model('imagenet128', 'unet', _WIDE + '--image_size 128 --class_cond True --num_heads 4',
          _ADM + '128x128_diffusion.pt', 421_529_606, classifier='imagenet128-classifier',
          scale=0.5, paper='table 5: ADM FID 5.91, ADM-G 2.97'),
    Model('imagenet256', 'unet',
          _WIDE + '--image_size 256 --class_cond True --num_head_channels 64',
          _ADM + '256x256_diffusion.pt', 553_838_086, classifier='imagenet256-classifier',
          scale=1.0, paper='table 5: ADM FID 10.94, ADM-G 4.59'),
    Model('imagenet256-uncond', 'unet',
          _WIDE + '--image_size 256 --class_cond False --num_head_channels 64',
          _ADM + '256x256_diffusion_uncond.pt', 552_814_086, file_bytes=2_211_383_297,
          sha256='a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1',
          classifier='imagenet256-classifier', scale=10.0,
          paper='table 4: FID 26.21, guided 12.00'),
    Model('imagenet512', 'unet',
          _WIDE + '--image_size 512 --class_cond True --num_head_channels 64',
          _ADM + '512x512_diffusion.pt', 558_997_638, classifier='imagenet512-classifier',
          scale=4.0, paper='table 5: ADM FID 23.24, ADM-G 7.72'),
    Model('imagenet64-classifier', 'classifier',
          '--image_size 64 --classifier_depth 4 --noise_schedule cosine',
          _ADM + '64x64_classifier.pt', 65_438_568),
    Model('imagenet128-classifier', 'classifier', '--image_size 128',
          _ADM + '128x128_classifier.pt', 42_568_040),
    Model('imagenet256-classifier', 'classifier', '--image_size 256',
          _ADM + '256x256_classifier.pt', 54_096_360),
    Model('imagenet512-classifier', 'classifier', '--image_size 512',
          _ADM + '512x512_classifier.pt', 54_448_360),
    Model('64_256', 'superres',
          _UPSAMPLER + '--attention_resolutions 32,16,8 --large_size 256 --small_size 64 '
          '--num_heads 4', _ADM + '64_256_upsampler.pt', 311_795_910,
          paper='table 6: ADM-U FID 7.49, ADM-G + ADM-U 3.94'),
    Model('128_512', 'superres',
          _UPSAMPLER + '--attention_resolutions 32,16 --large_size 512 --small_size 128 '
          '--num_head_channels 64', _ADM + '128_512_upsampler.pt', 308_835_270,
          paper='table 6: ADM-U FID 9.96, ADM-G + ADM-U 3.85'),
    Model('lsun-bedroom', 'unet', _LSUN + '--dropout 0.1', _ADM + 'lsun_bedroom.pt', 552_814_086,
          respacing='1000', paper=f'table 16: FID 1.90; {_SWEPT}: 2.02'),
    Model('lsun-cat', 'unet', _LSUN + '--dropout 0.1', _ADM + 'lsun_cat.pt', 552_814_086,
          respacing='1000', paper=f'table 16: FID 5.57; {_SWEPT}: 5.94'),
    Model('lsun-horse', 'unet', _LSUN + '--dropout 0.1', _ADM + 'lsun_horse.pt', 552_814_086,
          respacing='1000', paper=f'table 16: FID 2.57; {_SWEPT}: 2.83'),
    Model('lsun-horse-nodropout', 'unet', _LSUN + '--dropout 0.0',
          _ADM + 'lsun_horse_nodropout.pt', 552_814_086, respacing='1000',
          paper='table 5: ADM FID 2.95'),
    Model('iddpm-imagenet64', 'unet', _RESCALED + '--image_size 64 --num_channels 128',
          _IDDPM + 'imagenet64_uncond_100M_1500K.pt', 121_063_942),
    Model('iddpm-imagenet64-vlb', 'unet',
          _RESCALED + '--image_size 64 --num_channels 128 --use_kl True',
          _IDDPM + 'imagenet64_uncond_vlb_100M_1500K.pt', 121_063_942),
    Model('iddpm-imagenet64-cond', 'unet',
          _OLD + '--image_size 64 --num_channels 192 --class_cond True',
          _IDDPM + 'imagenet64_cond_270M_250K.pt', 273_049_350, paper='IDDPM: FID 2.92'),
    Model('iddpm-cifar10', 'unet', _RESCALED + '--image_size 32 --num_channels 128 --dropout 0.3',
          _IDDPM + 'cifar10_uncond_50M_500K.pt', 52_546_438),
    Model('iddpm-cifar10-vlb', 'unet',
          _RESCALED + '--image_size 32 --num_channels 128 --dropout 0.3 --use_kl True',
          _IDDPM + 'cifar10_uncond_vlb_50M_500K.pt', 52_546_438),
    Model('iddpm-64_256', 'superres',
          '--large_size 256 --small_size 64 --num_channels 192 --num_res_blocks 2 '
          '--learn_sigma True --class_cond True --diffusion_steps 4000 --noise_schedule linear',
          _IDDPM + 'upsample_cond_500K.pt', 279_792_390),
    Model('iddpm-lsun', 'unet', _OLD_LSUN, _IDDPM + 'lsun_uncond_100M_1200K_bs128.pt', 113_676_678),
    Model('iddpm-lsun-2400k', 'unet', _OLD_LSUN, _IDDPM + 'lsun_uncond_100M_2400K_bs64.pt',
          113_676_678),
)

MODELS = {model.name: model for model in _ALL}


def find(name: str) -> Model:
  """The model called `name`.

  Raises:
    UsageError: there is none; with the nearest names.
  """
  if name not in MODELS:
    near = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.4)
    hint = f'did you mean {", ".join(near)}?' if near else 'adm models lists them'
    raise UsageError(f'there is no published model {name!r}: {hint}')
  return MODELS[name]


def fetch(model: Model, bar: Callable) -> pathlib.Path:
  """The path of a published model's file, downloaded to `cache.folder()` if it is not there.

  Args:
    model: which.
    bar: bar(total, title) is a context that gives advance(count).

  Raises:
    UsageError: no network, or a file of the wrong size or content; says what to fetch, and where
      to put it.
  """
  most = model.file_bytes or int(1.01 * model.least_bytes + 1e6)
  return downloads.fetch(model.name, model.address, bar, sha256=model.sha256,
                         sizes=range(model.file_bytes or model.least_bytes, most + 1),
                         otherwise='name your copy instead of the model')
