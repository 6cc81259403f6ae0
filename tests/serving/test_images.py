"""What the page shows is what `adm sample`, and the lines of Python, make of the same words."""

import base64
import io
import shlex

import numpy as np
import pytest
from live_server import events
from PIL import Image

from adm_jax.cli.main import main
from adm_jax.data.decoding import Decoder
from adm_jax.devices import compile_times
from adm_jax.sampling import initial_states
from adm_jax.sampling.pipeline import Pipeline

PICTURE = np.random.default_rng(0).integers(0, 256, (11, 9, 3), np.uint8)


def pixels(pngs):
  """uint8[N H W C] of PNGs in base64."""
  images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in pngs]
  return np.stack(images).reshape(len(images), 8, 8, 3)


def image_of(events):
  assert [name for name, _ in events if name != 'part'][-2:] == ['image', 'done'], events
  return next(data for name, data in events if name == 'image')


def picture_file():
  file = io.BytesIO()
  Image.fromarray(PICTURE).save(file, 'PNG')
  return file.getvalue()


OWN = base64.b64encode(Decoder(8)(picture_file()).tobytes()).decode()


@pytest.mark.parametrize('asked', [
    dict(guide='classifier', scale=3.0, seed=2**32 - 1),
    dict(guide='free', scale=3.0, num=3, classes=[0, 4]),
    dict(guide='none', num=2, solver='ancestral', spacing=None, steps=10),
    dict(guide='none', solver='ddim', eta=0.5, spacing='time', steps=5),
    dict(guide='student', until=8, num=3),
    dict(guide='none', solver='ddim', spacing=None, steps=50, pixels=OWN, origin=3),
], ids=lambda asked: '-'.join(f'{name}' for name in asked))
def test_the_page_shows_what_the_command_and_the_lines_make(visitor, words, asked, tmp_path,
                                                            monkeypatch, capsys):
  found = image_of(visitor.ask([words(**asked)]))
  shown = pixels(found['images'])
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'picture').mkdir()
  (tmp_path / 'picture' / '0.png').write_bytes(picture_file())
  (tmp_path / 'image.png').write_bytes(picture_file())

  program, *line = shlex.split(found['command'])
  assert program == 'adm' and main(line) == 0, capsys.readouterr().err
  np.testing.assert_array_equal(shown, np.load('runs/live/samples.npz')['arr_0'])
  names = {}
  exec(found['python'], names)
  np.testing.assert_array_equal(shown, names['images'])


def test_a_picture_is_guided_elsewhere_from_its_code(visitor, words, tmp_path, monkeypatch):
  """Decoded as it was encoded it comes back, and with another class something else does."""
  course = dict(solver='ddim', spacing=None, steps=50, pixels=OWN, origin=3)
  same, other = (image_of(visitor.ask([words(**course, **more)])) for more in (
      dict(guide='none'), dict(guide='classifier', scale=50.0, classes=[0])))
  picture = Decoder(8)(picture_file()).astype(int)
  error, changed = (np.abs(pixels(found['images'])[0] - picture).mean() for found in (same, other))
  assert error < changed / 2, (error, changed)
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'image.png').write_bytes(picture_file())
  names = {}
  exec(other['python'], names)
  np.testing.assert_array_equal(pixels(other['images']), names['images'])
  assert other['command'] == ''


def test_a_film_has_x_0_and_x_t_of_each_part_and_ends_in_the_image(visitor, words):
  *parts, last, done = visitor.ask([words('classifier')], film=True, score=True, arrows=True)
  parts = [part for part in parts if part[0] != 'compiling']
  assert [name for name, _ in parts] == ['part'] * 9 and done[0] == 'done'
  frames = [data for _, data in (*parts, last)]
  assert [frame['step'] for frame in frames] == list(range(2, 21, 2))
  assert all(0 <= frame['score'][0] <= 1 and np.abs(frame['arrows']).max() == 1 for frame in frames)
  assert len({frame['x'][0] for frame in frames}) == 10
  image = image_of(visitor.ask([words('classifier')]))
  assert last[1]['x'] == last[1]['images'] == image['images'] == last[1]['x0']


def test_runs_of_one_request_start_from_the_same_noise(visitor, words):
  """Side by side, what differs is the guidance alone: at a scale of none, nothing does."""
  found = visitor.ask([words('none'), words('free', scale=1.0), words('classifier', scale=0.0),
                       words('student')])
  images = {data['run']: data['images'] for name, data in found if name == 'image'}
  assert images[0] == images[2] and len(images) == 4
  # Classifier-free guidance clips after it has extrapolated: equal but for rounding.
  assert np.abs(pixels(images[0]).astype(int) - pixels(images[1])).max() <= 1
  assert images[3] != images[0]


def test_a_picture_is_cropped_as_sample_does(visitor, offered):
  status, text = visitor.send('POST', f'/api/crop?model={offered[0].name}', picture_file())
  assert status == 200 and f'"pixels":"{OWN}"' in text


def test_more_images_than_go_at_once_come_batch_by_batch(visitor, words, monkeypatch):
  monkeypatch.setattr(Pipeline, 'default_batch_size', 4)
  found = visitor.ask([words('classifier', num=9, classes=[0, 3])])
  image = image_of(found)
  names = {}
  exec(image['python'], names)
  np.testing.assert_array_equal(pixels(image['images']), names['images'])
  parts = [data for name, data in found if name == 'part']
  assert all(part['steps'] == image['steps'] > part['step'] for part in parts)
  name, data = visitor.ask([words('classifier', num=9)], film=True)[-1]
  assert name == 'failed' and 'at most 4 images' in data['error']


def test_a_picture_is_encoded_once_and_its_program_is_kept(visitor, words):
  """So that the slider moves its images as it moves others."""
  def ask(pixels, **more):
    course = dict(solver='ddim', spacing=None, steps=50, pixels=pixels, origin=3, **more)
    return visitor.ask([words(guide, **course) for guide in ('none', 'classifier', 'free')])
  ask(OWN)
  with compile_times.listening() as spans:
    again = ask(OWN, scale=2.5)
    other = ask(base64.b64encode(bytes(192)).decode())
  assert spans.seconds('compiling') == 0
  images = [data['images'] for name, data in (*again, *other) if name == 'image']
  assert len({*sum(images, [])}) == 6


def test_what_is_not_finite_is_told_at_once(visitor, words, monkeypatch):
  """NaN is no JSON."""
  monkeypatch.setattr(initial_states, 'between', lambda a, b, num: (
      lambda index: np.full((len(index), 8, 8, 3), np.nan, np.float32)))
  status, text = visitor.post({'runs': [words(until=8, num=2)], 'film': True, 'score': True,
                               'arrows': True})
  assert status == 200 and 'NaN' not in text
  assert [name for name, _ in events(text) if name != 'compiling'] == ['failed']
  assert 'not finite' in text
