"""What a compiled program launches: its kernels, how many bytes and operations each has, what for.

    found = kernels(hlo.parse(compiled.as_text()))
    sum(kernel.bytes * kernel.times for kernel in found)

A kernel is a scheduled instruction that makes the device do something: a fusion, a library's call,
a copy; not a bitcast or a tuple. Its bytes are its operands' and its results', once each: what
memory moves if no cache helps. Loops count as often as they run.
"""

import dataclasses
import math
import re
from typing import Iterator

from adm_jax.plan.hlo import Array, Instruction, Program

KINDS = ('convolutions', 'products', 'attention', 'norms', 'casts', 'copies', 'transposes',
         'optimizer', 'collectives', 'other')

# They launch nothing: names, views and waits.
_FREE = frozenset((
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id',
    'replica-id', 'opt-barrier', 'optimization-barrier', 'add-dependency', 'domain'))
_FREE_CALLS = frozenset(('ConcatBitcast', 'AllocateBuffer', 'Sharding', 'xla.gpu.pin'))
_COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'collective-permute', 'all-to-all',
                'collective-broadcast')
# A fusion of these alone moves values, and computes none.
_MOVES = frozenset((
    'parameter', 'constant', 'bitcast', 'convert', 'copy', 'transpose', 'reshape', 'broadcast',
    'slice', 'dynamic-slice', 'dynamic-update-slice', 'concatenate', 'pad', 'tuple',
    'get-tuple-element', 'gather', 'fusion', 'iota', 'copy-start', 'slice-start', 'reverse'))
_NORM = re.compile(r'/\(?(?:norm\w*|Norm\w*)')
_ATTENTION = re.compile(r'dot_product_attention|flash_attention|splash|/\w*_attn\b|\bAttention\b')
_PROJECTION = re.compile(r'/(qkv|q|k|v|out)/')


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What is launched.

  Attributes:
    name: the instruction's.
    kind: one of `KINDS`.
    bytes: of operands and results, of one launch, without what lies on the chip.
    flops: 2 for each multiplication of its convolutions and products; else 0.
    dtype: of what it multiplies, by XLA's name; '' where it does not.
    cycles: that a compiler for TPUs expects; None elsewhere.
    window: whether it is a convolution of more than one pixel and of 128 channels or more.
    times: how often it is launched in a run of the program.
    loop: how often the outermost loop around it runs; None outside of loops.
    op_name: where it comes from.
    differentiates: whether all that it computes belongs to a function that is differentiated.
  """
  name: str
  kind: str
  bytes: float
  flops: float
  dtype: str
  cycles: int | None
  window: bool
  times: int
  loop: int | None
  op_name: str
  differentiates: bool = False


def kernels(program: Program) -> list[Kernel]:
  """Returns the kernels of a program, in the order of its schedule, each once."""
  # The state of an optimizer among the arguments: then what is outside of
  # the gradient is its.
  trains = any('opt_state' in each.op_name for each in program.computations[program.entry]
               if each.opcode == 'parameter')
  found = _launched(program, program.entry, 1, None)
  return [dataclasses.replace(kernel, kind='optimizer')
          if trains and kernel.kind == 'other' and not kernel.differentiates else kernel
          for kernel in found]


def _launched(program: Program, computation: str, times: int,
              loop: int | None) -> Iterator[Kernel]:
  for each in program.computations.get(computation, ()):
    called = each.called
    if each.opcode == 'while':
      known = program.trips(each)
      trips = known or 1  # of a loop whose end only the device knows, one round
      for body in called.get('body', []) + ([] if known else called.get('condition', [])):
        yield from _launched(program, body, times * trips, trips if loop is None else loop)
    elif each.opcode == 'conditional':
      branches = [list(_launched(program, name, times, loop)) for name in
                  (*called.get('branches', ()), *called.get('true_computation', ()),
                   *called.get('false_computation', ()))]
      yield from max(branches, key=lambda found: sum(k.bytes * k.times for k in found), default=())
    elif each.opcode == 'call':
      for name in called.get('to_apply', []) + called.get('calls', []):
        yield from _launched(program, name, times, loop)
    elif each.opcode == 'async-start':
      for name in called.get('calls', ()):
        yield from _launched(program, name, times, loop)
    elif _launches(each):
      yield _kernel(program, computation, each, times, loop)


def _launches(each: Instruction) -> bool:
  if each.opcode in _FREE or each.opcode.endswith('-done'):
    return False
  return each.opcode != 'custom-call' or each.attribute('custom_call_target') not in _FREE_CALLS


def _kernel(program, computation, each, times, loop) -> Kernel:
  inner = [(name, found) for called in each.called.get('calls', ())
           for name, found in _inside(program, called)] or [(computation, each)]
  flops, dtype, window = 0.0, '', False
  for name, found in inner:
    worked = _multiplied(program, name, found)
    if worked is not None:
      work, of, wide = worked
      flops, dtype, window = flops + work, of, window or wide
  cycles = re.search(r'"estimated_cycles":"(\d+)"', each.attributes)
  return Kernel(each.name, _kind(program, computation, each, [found for _, found in inner]),
                _bytes(program, computation, each), flops, dtype,
                int(cycles[1]) if cycles else None, window, times, loop, each.op_name,
                _differentiates([each, *(found for _, found in inner)]))


def _differentiates(instructions: list[Instruction]) -> bool:
  names = [each.op_name for each in instructions if each.opcode not in _MOVES]
  named = [name for name in names if name]
  return bool(named) and all('jvp(' in name for name in named)


def _inside(program: Program, computation: str) -> Iterator[tuple[str, Instruction]]:
  """(computation, instruction) of a fusion, of those that it nests as well."""
  for each in program.computations.get(computation, ()):
    yield computation, each
    if each.opcode in ('fusion', 'call'):
      for name in (name for names in each.called.values() for name in names):
        yield from _inside(program, name)


def _operand(program: Program, computation: str, name: str) -> tuple[Array, ...]:
  found = program.by_name[computation].get(name)
  return found.arrays if found else ()


def _arrays_of(program, computation, each) -> list[tuple[Array, ...]]:
  return [_operand(program, computation, name) for name in each.operands]


def _bytes(program, computation, each) -> float:
  """Operands and results, once each: an array that is given twice is read once."""
  def moved(arrays):
    return sum(array.nbytes for array in arrays if array.space == 0)
  if each.opcode == 'copy-start':  # (destination, source, a semaphore)
    return moved(each.arrays[:2])
  if each.opcode == 'slice-start':  # ((source), destination, a semaphore)
    return each.arrays[-2].nbytes + moved(each.arrays[-2:-1])
  results = each.arrays
  # (operands, results), but for all-reduce-start, which has results alone, as many as operands. The
  # operands are counted below.
  if each.opcode.endswith('-start') and len(results) > len(each.operands):
    results = results[len(each.operands):]
  return moved(results) + sum(moved(_operand(program, computation, name))
                              for name in dict.fromkeys(each.operands))


def _multiplied(program, computation, each) -> tuple[float, str, bool] | None:
  """(FLOPs, dtype, whether a convolution of a window) of an instruction that multiplies."""
  target = each.attribute('custom_call_target') if each.opcode == 'custom-call' else ''
  if each.opcode == 'dot':
    lhs = _arrays_of(program, computation, each)[0][0]
    contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', each.attributes)
    depth = math.prod(lhs.dims[int(axis)] for axis in contracted[1].split(',') if axis)
    return 2 * each.arrays[0].size * depth, lhs.dtype, False
  if each.opcode == 'convolution' or target.startswith('__cudnn$conv'):
    given = _arrays_of(program, computation, each)
    image, kernel, out = given[0][0], given[1][0], each.arrays[0]
    if target.endswith('BackwardInput'):  # (gradient, kernel) -> image
      image, out = out, image
    elif target.endswith('BackwardFilter'):  # (image, gradient) -> kernel
      kernel, out = out, kernel
    labels = re.search(r'dim_labels=\w+_(\w+)->', each.attributes)
    made = kernel.dims[labels[1].index('o')] if labels else 1
    window = any(int(side) > 1 for side in
                 ''.join(re.findall(r'window=\{size=([\dx]+)', each.attributes)).split('x') if side)
    wide = kernel.size / made >= 9 * 128 and 'dot_general' not in each.op_name
    return 2 * out.size * kernel.size / max(1, made), given[0][0].dtype, window and wide
  if target.startswith('__cudnn$fmha'):
    return _fused_attention(_arrays_of(program, computation, each), 'Backward' in target)
  if target == 'tpu_custom_call':  # a Pallas kernel says itself what it computes
    stated = re.search(r'"cost_estimate":\{"flops":"(\d+)"', each.attributes)
    given = _arrays_of(program, computation, each)
    return (float(stated[1]), given[0][0].dtype, False) if stated and given else None
  if target.startswith('__cublas'):
    lhs, rhs = (arrays[0] for arrays in _arrays_of(program, computation, each)[:2])
    out = each.arrays[0]
    # Each of the three sides occurs in two of the three arrays, sides of a batch in all.
    return 2 * math.sqrt(lhs.size * rhs.size * out.size * _batch(lhs, rhs, out)), lhs.dtype, False
  return None


def _batch(*arrays: Array) -> int:
  """Leading sides that the factors and the result of a batch of products share, of rank 3 on."""
  sides = zip(*(array.dims[:-2] for array in arrays))
  return math.prod(same[0] for same in sides if len(set(same)) == 1) or 1


def _fused_attention(given, backward) -> tuple[float, str, bool]:
  """Two products of [L D] and [D L], and five for the gradient; q, k are [B L N D]."""
  q, k = given[0][0], given[1][0]
  length = k.dims[1]
  return (10 if backward else 4) * q.size * length, q.dtype, False


def _kind(program, computation, each, inner) -> str:
  opcodes = {found.opcode for found in inner}
  names = ' '.join(dict.fromkeys([each.op_name, *(found.op_name for found in inner)]))
  target = each.attribute('custom_call_target') if each.opcode == 'custom-call' else ''
  if any(each.opcode.startswith(name) for name in _COLLECTIVES):
    return 'collectives'
  attends = bool(_ATTENTION.search(each.op_name)) and not (
      _NORM.search(each.op_name) or _PROJECTION.search(each.op_name))
  if target.startswith('__cudnn$conv') or 'convolution' in opcodes and (
      'conv_general_dilated' in names):
    return 'convolutions'
  if target.startswith('__cudnn$fmha') or attends:
    return 'attention'
  if target.startswith('__cublas') or opcodes & {'dot', 'convolution'}:
    return 'products'
  if opcodes <= _MOVES:
    return _movement(program, computation, each, opcodes)
  return 'norms' if _NORM.search(names) else 'other'


def _movement(program, computation, each, opcodes) -> str:
  if 'convert' in opcodes:
    return 'casts'
  layouts = {array.layout for name in each.operands
             for array in _operand(program, computation, name)[:1]}
  moved = each.opcode == 'copy' and layouts and layouts != {each.arrays[0].layout}
  return 'transposes' if 'transpose' in opcodes or moved else 'copies'


@dataclasses.dataclass(frozen=True)
class Totals:
  """Of some kernels.

  Attributes:
    launches: how many.
    bytes: that they move.
    flops: of convolutions, products and attention.
    by_kind: {kind: (launches, bytes)}, the kinds that occur.
  """
  launches: float
  bytes: float
  flops: float
  by_kind: dict[str, tuple[float, float]]


def totals(found: list[Kernel], steps: int = 1) -> Totals:
  """Adds up kernels, each as often as it runs, per step of `steps`."""
  def of(some):
    return sum(k.times for k in some) / steps, sum(k.times * k.bytes for k in some) / steps
  groups = {kind: [k for k in found if k.kind == kind] for kind in KINDS}
  return Totals(*of(found), sum(k.times * k.flops for k in found) / steps,
                {kind: of(some) for kind, some in groups.items() if some})
