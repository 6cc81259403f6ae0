"""The commands: a user's mistake is one line and exit code 2."""

import os
import subprocess
import sys

import pytest
import tiny

import adm_jax
from adm_jax.cli.main import COMMANDS, main


@pytest.mark.parametrize('words, message', [
    (['--frob'], 'no command before --frob'),
    (['trian'], 'invalid choice'),
    (['train'], '--config'),
    (['train', '--config', 'absent.py', '--workdir', 'x'], 'there is no config absent.py'),
    (['train', '--config', tiny.__file__, '--workdir', 'x', '--config.batch_sise=1'],
     "did you mean 'batch_size'"),
    (['train', '--config', tiny.__file__, '--workdir', 'x',
      '--config.task.network.module.channels=33'],
     '33 channels'),
    (['demo', '--out', 'x', '--unet.batch_sise=3'], "did you mean 'batch_size'"),
    (['demo', '--out', 'x', '--respacing', 'ddim300'], "'ddim300' is impossible"),
    (['demo', '--out', 'x', '--num', '0'], 'num=0'),
    (['demo', '--out', 'x', '--frob'], '--frob'),
    (['demo', '--out', 'x', '--scale', 'nan'], 'scale=nan'),
    (['demo', '--out', 'x', '--classifier.batch_size=0'], 'classifier: batch_size=0'),
    (['demo', '--out', 'x', '--unet.task.network.module.num_classes=10'], 'unconditional'),
    (['demo', '--out', 'x', '--unet.task.network.diffusion.schedule.offset=0.01'],
     'different schedules'),
    (['train', '--config', tiny.__file__, '--workdir', '/proc/x'], '/proc/x'),
    (['demo', '--out', '/proc/x'], '/proc/x'),
])
def test_a_mistake_is_one_line_and_leaves_nothing(words, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(words) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out
  assert not list(tmp_path.iterdir())


def test_a_work_directory_that_is_a_file_is_one_line(tmp_path, capsys):
  (tmp_path / 'x').write_text('mine')
  assert main(['train', '--config', tiny.__file__, '--workdir', str(tmp_path / 'x')]) == 2
  assert capsys.readouterr().err.count('adm: ') == 1
  assert (tmp_path / 'x').read_text() == 'mine'


@pytest.mark.parametrize('command', [[], *([name] for name in COMMANDS)])
def test_help_is_printed(command, capsys):
  with pytest.raises(SystemExit) as exit_:
    main([*command, '--help'])
  assert exit_.value.code == 0 and 'usage: adm' in capsys.readouterr().out


def test_no_words_print_the_help(capsys):
  assert main([]) == 0
  captured = capsys.readouterr()
  assert 'usage: adm' in captured.out and 'reproduce' in captured.out and not captured.err


def test_the_version_is_the_packages(capsys):
  with pytest.raises(SystemExit) as exit_:
    main(['--version'])
  assert exit_.value.code == 0
  assert capsys.readouterr().out == f'adm {adm_jax.__version__}\n'


def test_the_package_imports_without_what_only_some_users_need():
  code = ('import sys, adm_jax.sampling.sampler, adm_jax.models, adm_jax.cli.main\n'
          'heavy = {"tensorflow", "tensorflow_datasets", "clu", "grain", "sklearn", "torch"}\n'
          'sys.exit(", ".join(heavy & set(sys.modules)) or 0)')
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert result.returncode == 0, result.stderr


def test_parsers_are_built_without_jax():
  """Names of solvers are looked up once a command runs, so that help is quick."""
  code = ('import sys, adm_jax.cli.main as cli\n'
          'code = cli.main(["sample", "--frob"])\n'
          'sys.exit("jax" in sys.modules or code != 2)')
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_what_is_printed_onto_a_full_disk_is_one_line_and_a_mistake():
  with open('/dev/full', 'w') as full:
    result = subprocess.run([sys.executable, '-m', 'adm_jax.cli.main', 'models'], stdout=full,
                            stderr=subprocess.PIPE, text=True)
  assert result.returncode == 2
  assert result.stderr == 'adm: No space left on device: standard output\n'
