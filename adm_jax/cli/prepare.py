"""Prepare a TFDS data set for training: download it, and write it as array_record files, once.

This alone needs TensorFlow; training reads the files without it.

examples:
  adm prepare cifar10
  adm prepare lsun/bedroom --data-dir /data/tfds
  adm prepare imagenet2012     # after ILSVRC2012_img_train.tar and _val.tar are in downloads/manual
"""

import argparse
import difflib
import importlib.util

from adm_jax.errors import UsageError
from adm_jax.io import extras


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('name', metavar='NAME', help="as in TFDS's catalog: cifar10, lsun/cat ...")
  parser.add_argument('--data-dir', metavar='DIR',
                      help='where data sets lie; default $TFDS_DATA_DIR or ~/tensorflow_datasets')


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  if rest:
    raise UsageError(f'adm prepare does not understand {" ".join(rest)}; see adm prepare --help')
  if importlib.util.find_spec('tensorflow') is None:
    raise UsageError(f'adm prepare needs TensorFlow, which training does not: '
                     f'{extras.command("prepare")}, here or on another machine')
  from adm_jax.data import tfds as tfds_lib

  tfds = tfds_lib.import_tfds()
  folder = tfds_lib.folder_of(arguments.data_dir)
  try:
    builder = tfds.builder(arguments.name, data_dir=folder, file_format='array_record')
    builder.download_and_prepare()
  except tfds.core.registered.DatasetNotFoundError as error:
    near = difflib.get_close_matches(arguments.name, tfds.list_builders(), n=3, cutoff=0.4)
    hint = f'did you mean {", ".join(near)}?' if near else 'see tensorflow.org/datasets/catalog'
    raise UsageError(f'TFDS has no data set {arguments.name!r}: {hint}') from error
  except Exception as error:  # downloads, manual downloads, formats, disks: in TFDS's own words
    raise UsageError(f'{arguments.name} cannot be prepared: '
                     f'{" ".join(str(error).split())[:600]}') from error
  for split, info in builder.info.splits.items():
    print(f'{arguments.name} {split}: {info.num_examples:,} examples')
  print(f'prepared: {builder.data_dir}')
  return 0
