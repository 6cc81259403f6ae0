"""The house: imports point down the list of rooms, and the maths knows nothing of what is above."""

import ast
import pathlib
import sys

import pytest

import adm_jax

PACKAGE = pathlib.Path(adm_jax.__file__).parent
# From the top down, as CONTRIBUTING.md has them; those of one line may not import each other.
ROOMS = ('cli', 'demo', 'configs', 'serving', 'plan', 'training', 'evaluation', 'sampling',
         'weights', 'networks', 'models', 'data', 'devices', 'process', 'stored_configs', 'io',
         'config', 'errors')
MODULES = sorted(PACKAGE.rglob('*.py'))


def imports(path: pathlib.Path) -> set[str]:
  """The modules that a file imports, inside of functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: a relative import'
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def room(name: str) -> str:
  """The room of a module 'adm_jax.ROOM...'."""
  return name.split('.')[1]


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
  own = path.relative_to(PACKAGE).with_suffix('').parts[0]
  if own == '__init__':
    return
  for name in imports(path):
    if name.startswith('adm_jax.') and room(name) != '__version__':
      other = room(name)
      assert other in ROOMS, f'{name} is in no room: add it to the list'
      assert other == own or ROOMS.index(other) > ROOMS.index(own), f'{own} imports {name} above'


@pytest.mark.parametrize('path', sorted((PACKAGE / 'process').glob('*.py')),
                         ids=lambda path: path.stem)
def test_the_process_imports_jax_and_numpy_only(path):
  allowed = {'jax', 'numpy', *sys.stdlib_module_names}
  for name in imports(path):
    if name.startswith('adm_jax.'):
      assert room(name) in ('process', 'errors'), name
    else:
      assert name.split('.')[0] in allowed, name


def test_the_first_level_is_small():
  modules = [path for path in PACKAGE.glob('*.py') if path.stem != '__init__']
  assert len(modules) <= 6, modules


def test_every_room_says_what_it_is_for():
  for folder in PACKAGE.iterdir():
    if folder.is_dir() and folder.name != '__pycache__':
      assert ast.get_docstring(ast.parse((folder / '__init__.py').read_text())), folder


def test_contributing_lists_the_rooms_in_this_order():
  text = (PACKAGE.parent / 'CONTRIBUTING.md').read_text()
  text = text[text.index('## Rooms'):text.index('## Adding')]
  places = [text.index(f'`{name}' + ('.py`' if (PACKAGE / f'{name}.py').exists() else '/`'))
            for name in ROOMS]
  assert places == sorted(places)
