"""Options that say which part of a job a process makes."""

import argparse
import contextlib
from typing import TYPE_CHECKING, Any, Iterator

from adm_jax.cli.train import add_process_arguments
from adm_jax.errors import UsageError
from adm_jax.io.parts import Part

if TYPE_CHECKING:
  import jax

  from adm_jax.io.meetings import Meeting


def add_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
  group = parser.add_argument_group(
      'several processes, which share a folder (TPU slices and Slurm are found by themselves)')
  group.add_argument('--part', metavar='I/N',
                     help='make part I of N, from 0, and end: for machines that know nothing of '
                          'each other')
  add_process_arguments(group)
  return group


def add_sharing_argument(group: argparse._ArgumentGroup) -> None:
  """What commands have beside `add_arguments` whose weights several processes can hold together."""
  group.add_argument('--hosts-per-copy', type=int, metavar='G',
                     help='G processes at a time, which then talk to each other, hold one copy of '
                          'the weights on their devices together; default: 1')


def add_shared_argument(parser: argparse.ArgumentParser) -> None:
  """What commands need beside `add_process_arguments` whose processes calculate together."""
  group = parser.add_argument_group(
      'several processes (TPU slices and Slurm are found by themselves)')
  group.add_argument('--shared', metavar='DIR',
                     help='a folder that all see, or gs://BUCKET/..., for what they exchange')
  add_process_arguments(group)


@contextlib.contextmanager
def meeting(arguments: argparse.Namespace, part: Part, words: Any) -> Iterator['Meeting']:
  """The meeting of this command's processes, who all have to agree on `words`, JSON values."""
  from adm_jax.io import meetings

  if not part.whole and arguments.shared is None:
    raise UsageError(f'{part.count} processes share the work: name a folder that all of them see '
                     'with --shared DIR')
  with meetings.meeting(arguments.shared or '.', part, words) as together:
    yield together


def part(arguments: argparse.Namespace) -> Part:
  """Which part this process makes; to be called before anything else touches a device."""
  from adm_jax.devices import hosts

  return hosts.part(getattr(arguments, 'part', None), arguments.coordinator,
                    arguments.num_processes, arguments.process)


def part_and_devices(arguments: argparse.Namespace
                     ) -> tuple[Part, 'list[jax.Device] | None']:
  """`part`, and the devices of the processes that hold its weights together; None: this one's."""
  from adm_jax.devices import hosts

  if arguments.hosts_per_copy is None:
    return part(arguments), None
  if arguments.part is not None:
    raise UsageError('--hosts-per-copy is for processes that talk to each other, and --part for '
                     'those that do not: give one')
  return hosts.sharing(arguments.hosts_per_copy, arguments.coordinator, arguments.num_processes,
                       arguments.process)
