"""Data sets of TensorFlow Datasets, without TensorFlow: read by index from array_record files.

`adm prepare NAME` makes the files, once; that alone needs TensorFlow.
"""

import os
import pathlib

import numpy as np

from adm_jax.data import decoding
from adm_jax.data.sources import UnreadableImage
from adm_jax.errors import UsageError, one_line
from adm_jax.io import extras


class Tfds:
  """One split of a prepared data set.

  Images are decoded by `decoding.Decoder`, not by TFDS, so that crops are ADM's; class names come
  from the data set's own description.

  Attributes:
    draws: whether `read` depends on its `rng`.
    Others as `sources.Source`.
  """

  def __init__(self, name: str, split: str = 'train', image_size: int | None = None,
               crop: str | None = 'center', channels: int = 3, data_dir: str | None = None,
               image: str = 'image', label: str | None = 'label'):
    """Opens the data set's description; no image is read yet.

    Args:
      name: 'cifar10', 'imagenet_resized/64x64', 'lsun/cat', also with ':VERSION'.
      split: 'train', 'test', 'train[:1000]' ...
      image_size, crop, channels: see `decoding.Decoder`; without a crop the data set must say its
        size.
      data_dir: where data sets lie; by default $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      image: the feature that holds the image.
      label: the feature that holds the class; if there is none, or None, there are no labels.

    Raises:
      UsageError: TFDS is missing, or the data set is not prepared, has no such split, or no images.
    """
    tfds = import_tfds()
    self._decode = decoding.Decoder(image_size, crop, channels)
    self.name = f'{name} {split}'
    self.draws = crop == 'random'
    features, self._records = _open(tfds, name, split, folder_of(data_dir), image, label)
    self._image = image
    self._label = label if label in features else None
    self.class_names = () if self._label is None else tuple(features[label].names)
    height, width = (image_size, image_size) if image_size else features[image].shape[:2]
    if height is None:
      raise UsageError(f"{name} has images of many sizes: set crop='center' and an image_size")
    self.image_shape = (height, width, channels)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    return self.read(index, None)

  def read(self, index: int, rng: np.random.Generator | None) -> dict:
    """The same with the random crop that `rng` draws, if that is the crop."""
    record = self._records[index]
    try:
      image = self._decode(record[self._image], rng)
    except Exception as error:  # of damaged files Pillow raises anything
      raise UnreadableImage(f'image {index} of {self.name}: {decoding.reason(error)}') from error
    if image.shape != self.image_shape:
      raise UsageError(f'image {index} of {self.name} is {image.shape[0]} x {image.shape[1]} '
                       f'(H x W), not {self.image_shape[0]} x {self.image_shape[1]}: set '
                       "crop='center' and an image_size")
    label = 0 if self._label is None else record[self._label]
    return {'image': image, 'label': np.int32(label)}

  def __repr__(self) -> str:
    # Stable from run to run: an iterator's checkpoint may hold it.
    return f'Tfds({self.name!r}, {len(self)} images)'


def folder_of(data_dir: str | None) -> str:
  """Where data sets lie, unless told otherwise: TFDS's own rule."""
  return os.path.expanduser(data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def import_tfds():
  """The module `tensorflow_datasets`, which imports no TensorFlow until it prepares something."""
  try:
    import array_record  # noqa: F401  # TFDS would miss it only at the first image
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise UsageError(f'TFDS data sets need {error.name}: {extras.command("tfds")}') from error
  return tfds


def _open(tfds, name: str, split: str, folder: str, image: str, label: str | None):
  """(features, records whose image is still encoded) of a prepared data set."""
  elsewhere = '' if folder == folder_of(None) else f' --data-dir {folder}'
  prepare = f'adm prepare {name}{elsewhere}'
  try:
    # By its files alone: nothing that could prepare it, or import TensorFlow, is looked up.
    builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
  except tfds.core.registered.DatasetNotFoundError as error:
    raise UsageError(f'{name} is not prepared in {folder}: run {prepare}') from error
  if split.partition('[')[0] not in builder.info.splits:
    raise UsageError(f'{name} has no split {split!r}: it has '
                     f'{", ".join(sorted(builder.info.splits))}')
  features = dict(builder.info.features.items())
  if not isinstance(features.get(image), tfds.features.Image):
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    raise UsageError(f'{name} has no image called {image!r}: '
                     + (f'set image to {" or ".join(images)}' if images else 'it has none at all'))
  if label in features and not isinstance(features[label], tfds.features.ClassLabel):
    raise UsageError(f'{label!r} of {name} is no class: set label to None, or to another feature')
  try:
    records = builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
    len(records)  # which alone finds that a part ends before it begins
  except NotImplementedError as error:
    raise UsageError(f'{name} in {folder} is not in the array_record format, which training reads: '
                     f'move {pathlib.Path(builder.data_dir)} away and run {prepare}') from error
  except ValueError as error:
    raise UsageError(f'{name} has no part {split!r} ({one_line(error)}): give a split, or a part '
                     'of one with some images, as train[:1000] or train[90%:]') from error
  return features, records
