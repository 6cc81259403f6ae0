"""Files for TensorBoard, made of its own messages: without TensorFlow."""

import io
import os
import pathlib
import socket
import time

import numpy as np
from PIL import Image

from adm_jax.errors import UsageError
from adm_jax.io import extras
from adm_jax.io.files import is_local, naming


class EventFile:
  """A new file in a folder for TensorBoard."""

  def __init__(self, folder: pathlib.Path, resume_at: int):
    """Tells TensorBoard to forget what older files of the folder have after step `resume_at`.

    Raises:
      UsageError: tensorboard is not installed.
      OSError: the file cannot be written; so do the methods.
    """
    try:
      from tensorboard.compat.proto import event_pb2, summary_pb2
      from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
      raise UsageError(f'TensorBoard files need tensorboard ({error}): '
                       f'{extras.command("tensorboard")}, or leave out --tensorboard') from error
    self._events, self._summaries = event_pb2, summary_pb2
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads files in the order of their names, which others begin with seconds, too.
    name = f'events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}'
    self._path, self._unwritten = folder / name, io.BytesIO()
    self._records = RecordWriter(self._unwritten)
    self._add(event_pb2.Event(file_version='brain.Event:2'))
    self._add(event_pb2.Event(step=resume_at + 1, session_log=event_pb2.SessionLog(
        status=event_pb2.SessionLog.START)))
    self.flush()

  def scalars(self, step: int, values: dict[str, float]) -> None:
    self._summary(step, [self._summaries.Summary.Value(tag=tag, simple_value=value)
                         for tag, value in values.items()])

  def images(self, step: int, tag: str, images: np.ndarray) -> None:
    """Images uint8[N H W C], as TAG/0 to TAG/(N - 1)."""
    height, width, channels = images.shape[1:]
    self._summary(step, [
        self._summaries.Summary.Value(tag=f'{tag}/{i}', image=self._summaries.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=_png(image)))
        for i, image in enumerate(images)])

  def flush(self) -> None:
    """Brings a file in a bucket up to date; elsewhere it always is."""
    written = self._unwritten.getvalue()
    if not is_local(self._path):  # nothing can be appended to an object of a bucket
      self._path.write_bytes(written)
      return
    with naming(self._path), open(self._path, 'ab') as file:
      file.write(written)
    self._unwritten.seek(0)
    self._unwritten.truncate()

  def _summary(self, step, values):
    self._add(self._events.Event(step=step, summary=self._summaries.Summary(value=values)))
    if is_local(self._path):
      self.flush()

  def _add(self, event):
    event.wall_time = time.time()
    self._records.write(event.SerializeToString())


def _png(image: np.ndarray) -> bytes:
  encoded = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(encoded, 'PNG')
  return encoded.getvalue()
