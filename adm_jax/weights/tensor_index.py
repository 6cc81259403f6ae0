"""The index inside a `.pt` file: a pickle, read by a machine that knows only what tensors need.

Python's own unpickler can run any code, and a few bytes can make it take gigabytes. Here a name
is a name until a function from the caller's short list is called with it, and nothing is imported.
"""

import pickletools
from typing import Any, Callable, Mapping, NamedTuple

from adm_jax.errors import UsageError

# A tensor takes about 30 steps and 150 bytes of an index.
MOST_BYTES, _MOST_STEPS, _MOST_ARGUMENTS = 16 << 20, 1_000_000, 16


class Name(NamedTuple):
  """A function or class that the index mentions."""
  module: str
  name: str


def read(content: bytes, functions: Mapping[Name, Callable], names: frozenset[Name],
         load_storage: Callable[..., Any]) -> Any:
  """What the index describes.

  Args:
    content: the pickle.
    functions: what it may call.
    names: what it may mention besides.
    load_storage: load_storage(*arguments) returns what a persistent id stands for.

  Raises:
    UsageError: it asks for anything else, or is not whole.
  """
  if len(content) > MOST_BYTES:
    raise UsageError(f'its index has more than the {MOST_BYTES:,} bytes that this program reads')
  machine = _Machine(functions, names, load_storage)
  try:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
      if count >= _MOST_STEPS:
        raise UsageError(f'its index has more than {_MOST_STEPS:,} steps')
      if opcode.name == 'STOP':
        return machine.pop()
      machine.step(opcode.name, argument)
  except UsageError:
    raise
  # Of a damaged index: what is not there, is of another kind, or is no text.
  except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(f'its index is damaged ({type(error).__name__}: {error}): fetch it again'
                     ) from error
  raise UsageError('its index has no end: fetch it again')


_MARK = object()
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_VALUES = {'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE'}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class _Machine:
  """A stack, and what was put aside."""

  def __init__(self, functions, names, load_storage):
    self._functions, self._names, self._load_storage = functions, names, load_storage
    self._stack, self._memo = [], {}

  def pop(self) -> Any:
    return self._stack.pop()

  def step(self, opcode: str, argument: Any) -> None:
    push = self._stack.append
    if opcode in _VALUES:
      push(argument)
    elif opcode in ('BINPUT', 'LONG_BINPUT'):
      self._memo[argument] = self._stack[-1]
    elif opcode == 'MEMOIZE':
      self._memo[len(self._memo)] = self._stack[-1]
    elif opcode in ('BINGET', 'LONG_BINGET'):
      push(self._memo[argument])
    elif opcode in _CONSTANTS:
      push(_CONSTANTS[opcode])
    elif opcode == 'MARK':
      push(_MARK)
    elif opcode == 'EMPTY_DICT':
      push({})
    elif opcode == 'EMPTY_LIST':
      push([])
    elif opcode in _TUPLES:
      push(tuple([self.pop() for _ in range(_TUPLES[opcode])][::-1]))
    elif opcode == 'TUPLE':
      push(tuple(self._since_mark()))
    elif opcode == 'GLOBAL':
      push(self._known(*argument.split(' ', 1)))
    elif opcode == 'STACK_GLOBAL':
      name, module = self.pop(), self.pop()
      push(self._known(module, name))
    elif opcode == 'REDUCE':
      arguments, name = self._arguments(), self.pop()
      if not isinstance(name, Name) or name not in self._functions:
        raise TypeError('a call of what is no function')
      push(self._functions[name](*arguments))
    elif opcode == 'BINPERSID':
      push(self._load_storage(*self._arguments()))
    elif opcode in ('SETITEM', 'SETITEMS'):
      items = self._since_mark() if opcode == 'SETITEMS' else [self.pop(), self.pop()][::-1]
      # Text and numbers alone: a few tuples within tuples take hours to hash.
      if not all(isinstance(key, (str, int, float)) for key in items[::2]):
        raise TypeError('a key that is neither text nor a number')
      self._top(dict).update(zip(items[::2], items[1::2], strict=True))
    elif opcode in ('APPEND', 'APPENDS'):
      items = self._since_mark() if opcode == 'APPENDS' else [self.pop()]
      self._top(list).extend(items)
    elif opcode == 'BUILD':  # the versions of modules, which lie beside the tensors of a dict
      self.pop()
      self._top(dict)
    elif opcode not in ('PROTO', 'FRAME'):
      raise UsageError(f'its index has the pickle opcode {opcode}, which no file of weights needs: '
                       'it was refused, and nothing of it was run')

  def _known(self, module: str, name: str) -> Name:
    known = Name(module, name)
    if not (isinstance(module, str) and isinstance(name, str)):
      raise TypeError('a name that is no text')
    if known not in self._functions and known not in self._names:
      raise UsageError(f'it asks for {module}.{name}, which no file of weights needs: it was '
                       'refused, and nothing of it was run')
    return known

  def _arguments(self) -> tuple:
    arguments = self.pop()
    if not isinstance(arguments, tuple) or len(arguments) > _MOST_ARGUMENTS:
      raise TypeError('a call without a short tuple of arguments')
    return arguments

  def _top(self, kind: type) -> Any:
    if not isinstance(self._stack[-1], kind):
      raise TypeError(f'a {type(self._stack[-1]).__name__} where a {kind.__name__} belongs')
    return self._stack[-1]

  def _since_mark(self) -> list[Any]:
    items = []
    while (item := self.pop()) is not _MARK:
      items.append(item)
    return items[::-1]

