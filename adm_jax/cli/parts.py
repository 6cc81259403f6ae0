"""Options that say which part of a job a process makes."""

import argparse

from adm_jax.cli.train import add_process_arguments
from adm_jax.io.parts import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
      'several processes, which share a folder (TPU slices and Slurm are found by themselves)')
  group.add_argument('--part', metavar='I/N',
                     help='make part I of N, from 0, and end: for machines that know nothing of '
                          'each other')
  add_process_arguments(group)


def part(arguments: argparse.Namespace) -> Part:
  """Which part this process makes; to be called before anything else touches a device."""
  from adm_jax.devices import hosts

  return hosts.part(arguments.part, arguments.coordinator, arguments.num_processes,
                    arguments.process)
