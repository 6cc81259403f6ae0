"""`adm serve`: a mistake is one line before anything is served; tests/serving/ has the rest."""

import socket

import pytest
import tiny_models

from adm_jax.cli.main import main


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('models')
  tiny_models.unet(root / 'unet', tiny_models.NUM_CLASSES)
  tiny_models.classifier(root / 'classifier')
  tiny_models.classifier(root / 'large_classifier', image_size=16)
  tiny_models.student(root / 'student')
  tiny_models.upsampler(root / 'upsampler')
  return root


@pytest.mark.parametrize('words, message', [
    (['--port', '70000'], '--port 70000: give 0 to 65535'),
    (['--host', 'no.such.host.invalid'], 'cannot be bound'),
    (['--host', 'a..b'], 'cannot be bound'),
    (['--frob'], 'does not understand --frob'),
    (['--classifier', 'classifier'], 'name it with --model'),
    (['--model', 'absent'], 'absent'),
    (['--model', 'classifier'], 'makes no images by itself'),
    (['--model', 'upsampler'], 'makes no images by itself'),
    (['--model', 'unet', '--classifier', 'student'], 'does not guide unet'),
    (['--model', 'unet', '--classifier', 'large_classifier'], 'does not guide unet'),
    (['--model', 'unet', '--student', 'unet'], 'is not a student of unet'),
    (['--model', 'student', '--classifier', 'classifier'], 'leave out --classifier'),
])
def test_a_mistake_is_one_line(root, words, message, monkeypatch, capsys):
  monkeypatch.chdir(root)
  assert main(['serve', '--port', '0', *words]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out


def test_a_port_that_is_taken_is_one_line(root, capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    assert main(['serve', '--port', str(taken.getsockname()[1])]) == 2
  assert 'give another --host or --port' in capsys.readouterr().err
