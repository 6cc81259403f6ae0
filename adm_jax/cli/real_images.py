"""Real images as commands name them: a config, whose data is taken, or files."""

import pathlib
from typing import TYPE_CHECKING

from adm_jax.errors import UsageError

if TYPE_CHECKING:
  from adm_jax.config import ConfigDict
  from adm_jax.data.sources import Source


def source(command: str, data: str, overrides: list[str], image_shape: tuple[int, int, int],
           labels: str | None) -> 'Source':
  """The images at `data`.

  Args:
    command: as 'adm nll', for messages.
    data: a config by its name or path, a folder, a .zip or an .npz.
    overrides: of the config, '--config.key=value'.
    image_shape: (H, W, C) of the network that is to see them; files are cut to it.
    labels: where the labels of files come from; None: they have none.

  Raises:
    UsageError: there are none, or overrides of what is no config.
  """
  from adm_jax.data.open import open_source

  found = of_config(command, data, overrides)
  return found or open_source(data, image_size=image_shape[0], labels=labels,
                              channels=image_shape[-1])


def of_config(command: str, data: str, overrides: list[str]) -> 'Source | None':
  """The data of a config, by its path or the name of a packaged one; None if `data` names files.

  Raises:
    UsageError: a config without data, or overrides of what is no config.
  """
  from adm_jax import config as config_lib

  found = config_of(command, data, overrides)
  return None if found is None else config_lib.build(found)


def config_of(command: str, data: str, overrides: list[str]) -> 'ConfigDict | None':
  """The call that opens the data of a config; otherwise as `of_config`."""
  from adm_jax import config as config_lib

  path = pathlib.Path(data)
  if path.suffix == '.py' or (data in config_lib.packaged() and not path.exists()):
    config = config_lib.load(data, overrides)
    if 'data' not in config:
      raise UsageError(f'the config {data} has no data: give one like digits_unet')
    return config.data
  if overrides:
    raise UsageError(f'{command} does not understand {" ".join(overrides)}; see {command} --help')
  return None
