"""What is in a trace that `--profile` wrote, as the programs that show it read it."""

import gzip
import json
import pathlib

import jax


def steps(folder: pathlib.Path, name: str) -> list[int]:
  """The numbers of the steps called `name` in the one session below a run's folder.

  Read from both files, which must agree.
  """
  xplane, = folder.glob('profile/plugins/profile/*/process_0.xplane.pb')
  found = [dict(event.stats)['step_num']
           for plane in jax.profiler.ProfileData.from_file(str(xplane)).planes
           for line in plane.lines for event in line.events if event.name == name]
  text = gzip.decompress(xplane.with_name('process_0.trace.json.gz').read_bytes())
  assert found == [int(event['args']['step_num']) for event in json.loads(text)['traceEvents']
                   if event.get('name') == name]
  return found
