"""How fast images are read, beside a bare Pillow loop on as many cores.

  python benchmarks/data.py cifar10_train.zip

The loop (read the file, decode, convert, crop) runs in as many processes as there are cores, then
the pipeline with as many workers, and so on in turns; the medians count. Rates are per second of
processor time, all processes together, so that they hold on a machine that is busy with other
things too. The second data set, made from the first, has 500 x 375 JPEGs, ImageNet's usual size.
"""

import argparse
import io
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
import zipfile

from PIL import Image

from adm_jax.data import crops, loading
from adm_jax.data.folder import Folder


def loop(path: str, size: int, share: int, shares: int, seconds: float) -> tuple[int, float]:
  """(images, processor seconds) of the bare loop over every `shares`-th file."""
  with zipfile.ZipFile(path) as archive:
    names = [name for name in archive.namelist() if not name.endswith('/')][share::shares]
    end, used, done = time.monotonic() + seconds, time.process_time(), 0
    while time.monotonic() < end:
      image = Image.open(io.BytesIO(archive.read(names[done % len(names)]))).convert('RGB')
      crops.center_crop(image, size)
      done += 1
    return done, time.process_time() - used


def bare(path: str, size: int, cores: int, seconds: float) -> float:
  """Images per processor second of the loop, on all cores at once."""
  with multiprocessing.Pool(cores) as pool:
    parts = pool.starmap(loop, [(path, size, i, cores, seconds) for i in range(cores)])
  return sum(done for done, _ in parts) / sum(used for _, used in parts)


def processor_seconds() -> float:
  """Of this process and its living children."""
  def of(process):
    fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')  # utime, stime
  return time.process_time() + sum(map(of, multiprocessing.active_children()))


def piped(batches: loading.Batches, batch_size: int, seconds: float) -> float:
  """Images per processor second of the pipeline."""
  for _ in range(60):  # what was read ahead
    next(batches)
  end, used, done = time.monotonic() + seconds, processor_seconds(), 0
  while time.monotonic() < end:
    next(batches)
    done += batch_size
  return done / (processor_seconds() - used)


def enlarged(path: str, target: pathlib.Path, count: int = 512) -> None:
  """A .zip of `count` of the images as 500 x 375 JPEGs."""
  source = Folder(path, 32)
  with zipfile.ZipFile(target, 'w') as archive:
    for i in range(count):
      file = io.BytesIO()
      image = Image.fromarray(source[i * (len(source) // count)]['image'])
      image.resize((500, 375), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
      archive.writestr(source.files[i * (len(source) // count)], file.getvalue())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('zip', help='CIFAR-10 as JPEGs, in class folders')
  parser.add_argument('--seconds', type=float, default=8, help='for each measurement')
  parser.add_argument('--rounds', type=int, default=3)
  arguments = parser.parse_args()
  cores = len(os.sched_getaffinity(0))
  loaders = {'workers': loading.Loader(num_workers=cores),
             'workers, flip': loading.Loader(num_workers=cores, flip=True),
             'threads': loading.Loader(num_threads=cores)}
  print(f'{cores} cores; images per second of processor time, and the ratio to the bare loop\n')
  print(''.join(f'{head:>20}' for head in ('', 'bare loop', *loaders)))
  with tempfile.TemporaryDirectory() as folder:
    large = pathlib.Path(folder) / 'large.zip'
    enlarged(arguments.zip, large)
    for title, path, size, batch_size in (
        ('32 x 32', arguments.zip, 32, 128), ('500 x 375 to 64', large, 64, 32),
        ('500 x 375 to 256', large, 256, 32)):
      source = Folder(path, size)
      rates = {name: [] for name in ('bare loop', *loaders)}
      for _ in range(arguments.rounds):
        rates['bare loop'].append(bare(str(path), size, cores, arguments.seconds))
        for name, loader in loaders.items():
          batches = loading.batches(source, batch_size=batch_size, seed=0, loader=loader)
          rates[name].append(piped(batches, batch_size, arguments.seconds))
          del batches
      medians = {name: statistics.median(values) for name, values in rates.items()}
      cells = [f'{medians["bare loop"]:,.0f}'] + [
          f'{medians[name]:,.0f} ({medians[name] / medians["bare loop"]:.2f})' for name in loaders]
      print(''.join(f'{cell:>20}' for cell in (title, *cells)), flush=True)


if __name__ == '__main__':
  main()
