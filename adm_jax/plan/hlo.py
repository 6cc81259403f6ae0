"""The text of a compiled program, as XLA prints it (`compiled.as_text()`), read into values.

Only what a count of kernels needs: instructions with their shapes, operands and attributes, and
which computations they call. Text of GPUs' and TPUs' compilers is read alike.
"""

import dataclasses
import functools
import math
import re
from typing import Iterator

_BYTES = {'pred': 1, 'token': 0, 'opaque': 0, 'c64': 8, 'c128': 16}
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\](?:\{([^}]*)\})?')
_HEAD = re.compile(r'^\s*(ENTRY\s+)?%?([\w.\-]+)\s*\(.*->.*\{\s*$')
_INSTRUCTION = re.compile(r'^\s*(ROOT\s+)?%?([\w.\-]+) = ')
_OPCODE = re.compile(r'\s*([\w\-]+)\(')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(r'\b(calls|body|condition|to_apply|true_computation|false_computation)='
                     r'%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
  """An array's type.

  Attributes:
    dtype: by XLA's name, as 'bf16'.
    dims: its sides.
    layout: which axes are next to each other, the innermost first; '' where not said.
    space: which memory it lies in; 0 is the device's large one, 1 a TPU's vector memory.
  """
  dtype: str
  dims: tuple[int, ...]
  layout: str = ''
  space: int = 0

  @property
  def size(self) -> int:
    """How many values it has."""
    return math.prod(self.dims)

  @property
  def nbytes(self) -> float:
    """Bytes without padding."""
    if self.dtype in _BYTES:
      return self.size * _BYTES[self.dtype]
    bits = re.match(r'[a-z]+(\d+)', self.dtype)
    return self.size * int(bits[1]) / 8 if bits else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  Attributes:
    name: unique in its program.
    opcode: as 'fusion'.
    arrays: of its result, those of a tuple in order, nested ones flattened.
    operands: names.
    attributes: the rest of its line.
    root: whether its computation returns it.
    value: of a constant, as text; '' of others.
  """
  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str
  root: bool = False
  value: str = ''

  @property
  def op_name(self) -> str:
    """Where in the traced program it comes from; '' where XLA does not say."""
    found = _OP_NAME.search(self.attributes)
    return found[1] if found else ''

  @property
  def called(self) -> dict[str, list[str]]:
    """Names of computations that it calls, by what they are to it ('calls', 'body', ...)."""
    found: dict[str, list[str]] = {}
    for key, name in _CALLED.findall(self.attributes):
      found.setdefault(key, []).append(name)
    branches = _BRANCHES.search(self.attributes)
    if branches:
      found['branches'] = [name.strip().lstrip('%') for name in branches[1].split(',')]
    return found

  def attribute(self, key: str) -> str:
    """Returns the value of `key=value`, quoted or not; '' if there is none."""
    found = re.search(rf'\b{key}="?([^",\s]*)', self.attributes)
    return found[1] if found else ''


@dataclasses.dataclass(frozen=True)
class Program:
  """Computations by name, instructions in the order of their schedule, and which is the entry."""
  computations: dict[str, tuple[Instruction, ...]]
  entry: str

  @functools.cached_property
  def by_name(self) -> dict[str, dict[str, Instruction]]:
    """{computation: {name: instruction}}."""
    return {name: {each.name: each for each in found}
            for name, found in self.computations.items()}

  def trips(self, loop: Instruction) -> int | None:
    """How often a `while` runs; None where that is not known when it is compiled.

    Compilers for GPUs and CPUs say it. Else it is what the condition counts to, in ones from zero,
    as JAX's scans do: the one number that it holds.
    """
    said = _TRIPS.search(loop.attributes)
    if said:
      return int(said[1])
    inside = [each for name in loop.called.get('condition', ()) for each in self.inside(name)]
    compared = [each for each in inside if each.opcode == 'compare']
    bounds = [each.value for each in inside if each.opcode == 'constant' and each.value.isdigit()]
    counts = (len(compared) == len(bounds) == 1
              and compared[0].attribute('direction') in ('LT', 'GT'))
    return int(bounds[0]) if counts else None

  def inside(self, computation: str) -> Iterator[Instruction]:
    """Yields the instructions of a computation, and of the fusions and calls in it."""
    for each in self.computations.get(computation, ()):
      yield each
      if each.opcode in ('fusion', 'call'):
        for name in (name for names in each.called.values() for name in names):
          yield from self.inside(name)


def parse(text: str) -> Program:
  """Reads what XLA prints of a compiled program.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations: dict[str, tuple[Instruction, ...]] = {}
  entry, current, found = None, None, []
  for line in text.splitlines():
    if current is None:
      head = _HEAD.match(line)
      if head and ' = ' not in line.split('->')[0].split('(')[0]:
        current, found = head[2], []
        entry = current if head[1] else entry
    elif line.strip() == '}' or line.startswith('}'):
      computations[current], current = tuple(found), None
    else:
      instruction = _instruction(line)
      if instruction is not None:
        found.append(instruction)
  if entry is None:
    raise ValueError('this is no program that XLA printed: it has no ENTRY computation')
  return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
  start = _INSTRUCTION.match(line)
  if start is None:
    return None
  rest = line[start.end():]
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  shape, rest = rest[:end], rest[end:]
  opcode = _OPCODE.match(rest)
  if opcode is None:
    return None
  close = _closing(rest, opcode.end() - 1)
  inside = rest[opcode.end():close]
  operands = tuple(_NAME.findall(inside)) if opcode[1] != 'constant' else ()
  return Instruction(start[2], opcode[1], _arrays(shape), operands, rest[close + 1:],
                     bool(start[1]), inside if opcode[1] == 'constant' else '')


def _closing(text: str, opening: int) -> int:
  """Where the parenthesis that opens at `opening` closes; the end where it does not."""
  depth = 0
  for found in re.finditer(r'[()]', text[opening:]):
    depth += 1 if found[0] == '(' else -1
    if depth == 0:
      return opening + found.start()
  return len(text)


@functools.lru_cache(maxsize=4096)
def _arrays(shape: str) -> tuple[Array, ...]:
  def array(found):
    dims = tuple(int(side) for side in found[2].split(',') if side)
    layout = found[3] or ''
    space = re.search(r'S\((\d+)\)', layout)
    return Array(found[1], dims, layout.split(':')[0], int(space[1]) if space else 0)
  return tuple(map(array, _ARRAY.finditer(shape)))
