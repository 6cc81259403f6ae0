"""What is to be damaged is whole: each file is read, and read to its end."""

import pytest
from fuzzed import images

from adm_jax.errors import UsageError


@pytest.mark.parametrize('name', images.READERS)
def test_a_good_file_is_read_and_half_of_it_is_one_line(tmp_path, name):
  make, suffix, read = images.READERS[name]
  path = tmp_path / f'x{suffix}'
  path.write_bytes(make())
  read(path)
  path.write_bytes(make()[:len(make()) // 2])
  with pytest.raises(UsageError) as error:
    read(path)
  assert str(tmp_path) in str(error.value) and '\n' not in str(error.value)
