"""Damages good files at random and reads them: only a `UsageError` of one line may come out.

    python tests/fuzz.py [--minutes 60] [--seed 0] [--reader NAME] [--first N]

Readers are listed in the modules of `fuzzed/`, each in a dict

    READERS = {name: (make, suffix, read)}

where make() returns the bytes of a good file and read(path) reads one as the program does; path
ends in `suffix`, and the message of a refusal must name a file in its folder. A reader runs in a
process of its own, which may take no more memory than `MEMORY` above what a good file took; one
that hangs or dies is ended, named with the number of its mutation, and started again behind it.

A mutation is a function of seed, reader and number: with --seed and --first a finding comes back.
"""

import argparse
import copy
import importlib
import io
import json
import pathlib
import pickletools
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import zipfile
from typing import Any, Iterator, NamedTuple

MEMORY = 512 << 20  # bytes
SECONDS = 5  # for one mutation
_START = 120  # seconds that a process may take to import what it needs, on a busy machine
_HERE = pathlib.Path(__file__).parent


class Finding(NamedTuple):
  """What came out of mutation `number` that was no `UsageError` of one line."""
  reader: str
  number: int
  what: str


class Outcome(NamedTuple):
  """How many mutations were read, and what was found."""
  count: int
  findings: list[Finding]


def modules() -> dict[str, str]:
  """{reader: name of the module that lists it}."""
  names = sorted(f'fuzzed.{path.stem}' for path in (_HERE / 'fuzzed').glob('*.py'))
  return {reader: name for name in names for reader in importlib.import_module(name).READERS}


def run(reader: str, *, seed: int = 0, first: int = 0, count: int, seconds: float) -> Outcome:
  """Reads mutations first .. first + count - 1, or as many as there is time for."""
  end, until, findings, number = first + count, time.monotonic() + seconds, [], first
  while number < end and time.monotonic() < until:
    number = _of_one_process(reader, seed, number, end, until, findings)
  return Outcome(number - first, findings)


def _of_one_process(reader, seed, number, end, until, findings) -> int:
  """One process: adds what it finds; returns the number of the next mutation."""
  command = [sys.executable, __file__, '--child', reader, '--seed', str(seed),
             '--first', str(number), '--end', str(end)]
  with tempfile.TemporaryFile() as errors, subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=errors, bufsize=0) as child:
    try:
      begun = None
      for line in _lines(child.stdout, lambda: _START if begun is None else SECONDS):
        if line is None:
          findings.append(Finding(reader, -1 if begun is None else begun, 'hangs'))
          return end if begun is None else begun + 1
        word, _, what = line.partition(' ')
        if word == 'found':
          findings.append(Finding(reader, begun, what))
        else:
          begun = int(word)
          if time.monotonic() > until:
            return begun
      if child.wait() or begun != end - 1:
        errors.seek(0)
        last = errors.read().decode(errors='replace').strip().splitlines()[-1:]
        findings.append(Finding(reader, -1 if begun is None else begun,
                                f'ends with {child.returncode} {"".join(last)}'))
        return end if begun is None else begun + 1
      return end
    finally:
      child.kill()


def _lines(pipe, timeout) -> Iterator[str | None]:
  """Lines as they come; None once where none comes in time."""
  rest = b''
  while True:
    if not select.select([pipe], [], [], timeout())[0]:
      yield None
      return
    chunk = pipe.read(1 << 16)
    if not chunk:
      return
    *whole, rest = (rest + chunk).split(b'\n')
    yield from (line.decode() for line in whole)


# ---------------------------------------------------------------------------------------------
# In the process of a reader.


def child(reader: str, seed: int, first: int, end: int) -> None:
  """Prints the number of each mutation before it is read, and `found ...` behind it."""
  from adm_jax.errors import UsageError

  make, suffix, read = importlib.import_module(modules()[reader]).READERS[reader]
  good = make()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'good{suffix}'
    path.write_bytes(good)
    read(path)  # it imports what it needs, and must not fail
    _limit_memory(len(good))
    for number in range(first, end):
      print(number, flush=True)
      path = pathlib.Path(folder) / f'm{number}{suffix}'
      path.write_bytes(mutated(good, random.Random(f'{seed} {reader} {number}')))
      try:
        read(path)
      except UsageError as error:
        if str(error).splitlines() != [str(error)] or folder not in str(error):
          print(f'found no line that names the file: {str(error)!r}'[:300], flush=True)
      except BaseException as error:  # even SystemExit would be one
        print(f'found {type(error).__name__}: {str(error)!r}'[:300], flush=True)
      path.unlink()


def _limit_memory(size: int) -> None:
  """Makes an allocation fail that goes beyond what there is now by `MEMORY` and the file."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  limit = pages * resource.getpagesize() + MEMORY + size
  resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


# ---------------------------------------------------------------------------------------------
# Mutations.


def mutated(good: bytes, random: random.Random) -> bytes:
  """Bytes that are nearly those of a good file; formats that are known are also damaged within."""
  if random.random() < 0.6:
    if good[:2] == b'PK':
      return _zip(good, random)
    if good[:2] == b'\x80\x02':
      return _pickle(good, random)
    try:
      tree = json.loads(good)
    except ValueError:
      tree = None
    if isinstance(tree, (dict, list)):
      return _json(tree, random)
  return _bytes(good, random)


def _bytes(good: bytes, random: random.Random) -> bytes:
  data = bytearray(good)
  for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
    at = random.randrange(len(data) + 1)
    width = random.choice((1, 2, 4, 8))
    far = random.randrange(len(data) + 1)
    length = random.choice((1, 4, 16, 64, 1024))
    match random.randrange(8):
      case 0:
        data[at:at + 1] = bytes([random.randrange(256)])
      case 1:
        data[at:at + 1] = bytes([data[at] ^ 1 << random.randrange(8)]) if at < len(data) else b''
      case 2:
        data[at:at + width] = random.choice((b'\xff', b'\x00')) * width
      case 3:  # a number near a limit, at either end first
        number = random.choice((1 << 8 * width - 1, (1 << 8 * width) - 1)) - random.randrange(3)
        data[at:at + width] = number.to_bytes(width, random.choice(('little', 'big')))
      case 4:
        del data[at:random.choice((at + length, len(data)))]
      case 5:
        data[at:at] = random.randbytes(length)
      case 6:
        data[at:at] = data[far:far + length] * random.choice((1, 2, 50))
      case 7:
        data[at:at + length] = data[far:far + length]
  return bytes(data)


def _zip(good: bytes, random: random.Random) -> bytes:
  """One member of an archive damaged, under a checksum that is right again."""
  with zipfile.ZipFile(io.BytesIO(good)) as archive:
    members = [(info, archive.read(info)) for info in archive.infolist()]
  victim, out = random.randrange(len(members)), io.BytesIO()
  with zipfile.ZipFile(out, 'w') as archive:
    for i, (info, content) in enumerate(members):
      if i == victim:
        content = mutated(content, random)
      archive.writestr(info.filename, content, info.compress_type)
  return out.getvalue()


_STEPS = (b'r\xff\xff\xff\x1f', b'h\x00', b'K\xff', b'J\xff\xff\xff\xff', b'\x8a\x08' + b'\x7f' * 8,
          b'0', b'(', b')', b']', b'}', b'N', b't', b'\x85', b'\x86', b'\x87', b'R', b'Q', b's',
          b'u', b'e', b'a', b'b', b'.', b'\x94', b'\x93', b'\x81', b'cos\nsystem\n', b'2')


def _pickle(good: bytes, random: random.Random) -> bytes:
  """Its steps taken away, doubled, moved, or mixed with others."""
  starts = [place for _, _, place in pickletools.genops(good)]
  steps = [good[begin:end] for begin, end in zip(starts, [*starts[1:], len(good)])]
  for _ in range(random.choice((1, 1, 2, 4))):
    at, other = random.randrange(len(steps)), random.randrange(len(steps))
    match random.randrange(4):
      case 0:
        del steps[at]
        steps = steps or [b'.']
      case 1:
        steps[at] = random.choice((*_STEPS, steps[other]))
      case 2:
        steps.insert(at, random.choice((*_STEPS, steps[other])))
      case 3:
        steps[at:at] = steps[other:other + 8] * random.choice((1, 50))
  return b''.join(steps)


_JSON = (None, True, False, 0, -1, 1, 2.5, 10**9, 2**63, 10**30, -10**9, 1e308, float('nan'),
         float('inf'), '', 'x', '0', '\x1b[2J\x07\n', 'a' * 10_000, [], [0], [[]], {}, {'': 0},
         {'$name': 'os:system'}, {'$name': 'x'}, {'$name': []}, {'fn': 1}, {'fn': {'$name': ''}})


def _json(tree: Any, random: random.Random) -> bytes:
  """A part of it replaced, taken away, doubled or moved; or nested deeply."""
  for _ in range(random.choice((1, 1, 2, 5))):
    holder, key = random.choice(list(_places(tree)) or [(None, None)])
    if holder is None:
      break
    other, other_key = random.choice(list(_places(tree)))
    match random.randrange(6):
      case 0 | 1:
        holder[key] = copy.deepcopy(random.choice(_JSON))
      case 2:
        del holder[key]
      case 3:
        holder[key] = copy.deepcopy(other[other_key])
      case 4 if isinstance(holder, dict):
        holder[random.choice((str(other_key), 'x', '$name', 'fn', '__metadata__'))] = (
            holder.pop(key))
      case _:
        holder[key] = [holder[key]]
  text = json.dumps(tree)
  if random.random() < 0.1:
    depth = random.choice((100, 20_000, 200_000))
    text = text.replace(random.choice(('1', '"', '{')), '[' * depth + ']' * depth, 1)
  return text.encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
  items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(
      node, list) else ()
  for key, value in list(items):
    yield node, key
    yield from _places(value)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--minutes', type=float, default=60, help='in all')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--reader', help='this one alone')
  parser.add_argument('--first', type=int, default=0, help='the number of the first mutation')
  parser.add_argument('--count', type=int, default=10**9, help='of mutations of each reader')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  parser.add_argument('--end', type=int, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.child:
    child(options.child, options.seed, options.first, options.end)
    return 0
  readers = [options.reader] if options.reader else list(modules())
  found = False
  for reader in readers:
    outcome = run(reader, seed=options.seed, first=options.first, count=options.count,
                  seconds=60 * options.minutes / len(readers))
    found = found or bool(outcome.findings)
    print(f'{reader}: {outcome.count} mutations, {len(outcome.findings)} findings')
    kinds = {}
    for finding in outcome.findings:
      kinds.setdefault(finding.what[:40], []).append(finding)
    for same in sorted(kinds.values(), key=len, reverse=True):
      print(f'  {len(same)} times, first --seed {options.seed} --first {same[0].number}: '
            f'{same[0].what}')
  return int(found)


if __name__ == '__main__':
  sys.exit(main())
