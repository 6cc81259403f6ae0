"""What is to be damaged is whole: each file is read, and read to its end."""

import importlib

import fuzz
import pytest

from adm_jax.errors import UsageError


@pytest.mark.parametrize('name, module', fuzz.modules().items())
def test_a_good_file_is_read_and_half_of_it_is_one_line(tmp_path, name, module):
  make, suffix, read = importlib.import_module(module).READERS[name]
  good, half = (tmp_path / f'{name}{suffix}' for name in ('good', 'half'))
  good.write_bytes(make())
  read(good)
  half.write_bytes(make()[:len(make()) // 2])
  with pytest.raises(UsageError) as error:
    read(half)
  assert str(tmp_path) in str(error.value) and '\n' not in str(error.value)
