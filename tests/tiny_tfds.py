"""A small prepared TFDS data set, written without TensorFlow."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

CLASSES = ('cat', 'dog', 'owl')


def photo(index: int, height: int = 12, width: int = 17) -> np.ndarray:
  """uint8[H W 3] that differ from index to index."""
  return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


def write(data_dir: pathlib.Path, name: str = 'pets', count: int = 7, labeled: bool = True,
          damaged: tuple[int, ...] = (), suffix: str = 'array_record') -> None:
  """Makes `data_dir/name/1.0.0`, a split 'train' of `count` photos, class i % 3 of photo i.

  With another `suffix` the description names another format.
  """
  folder = data_dir / name / '1.0.0'
  folder.mkdir(parents=True)
  features = {'image': tfds.features.Image(shape=(None, None, 3))}
  if labeled:
    features['label'] = tfds.features.ClassLabel(names=CLASSES)
  template = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
  writer = ArrayRecordWriter(
      str(folder / f'{name.split("/")[0]}-train.{suffix}-00000-of-00001'), 'group_size:1')
  for i in range(count):
    file = io.BytesIO()
    Image.fromarray(photo(i)).save(file, 'PNG')
    example = tf_example_pb2.Example()
    encoded = b'no image' if i in damaged else file.getvalue()
    example.features.feature['image'].bytes_list.value.append(encoded)
    if labeled:
      example.features.feature['label'].int64_list.value.append(i % 3)
    writer.write(example.SerializeToString())
  writer.close()
  tfds.folder_dataset.write_metadata(
      data_dir=folder, features=tfds.features.FeaturesDict(features),
      split_infos=[tfds.core.SplitInfo(
          name='train', shard_lengths=[count], num_bytes=0,
          filename_template=tfds.core.ShardedFileTemplate(
              data_dir=folder, template=template, dataset_name=name.split('/')[0], split='train',
              filetype_suffix=suffix))],
      filename_template=template, check_data=False)
