"""The page without a server: its folder, and its images in a browser, beside those of Python."""

import contextlib
import functools
import http.server
import json
import pathlib
import shutil
import threading

import chromium
import jax
import numpy as np
import pytest
import tiny_models

from adm_jax.cli.main import main
from adm_jax.errors import UsageError
from adm_jax.io.progress import no_bar
from adm_jax.sampling import onnx_export
from adm_jax.serving import onnxruntime_web, static_page

onnxruntime = pytest.importorskip('onnxruntime', reason='the extra onnx is not installed')
pytestmark = pytest.mark.skipif(not jax.__version__.startswith('0.10.'),
                                reason='jax2onnx 0.12 and 0.17 do not know later versions of JAX')


@pytest.fixture(scope='module')
def runtime():
  try:
    return onnxruntime_web.files(None, no_bar)
  except UsageError as error:
    pytest.skip(str(error))


@pytest.fixture(scope='module')
def opened():
  pytest.importorskip('selenium', reason='a browser is driven by Selenium')
  with chromium.opened() as driver:
    yield driver


@pytest.fixture
def browser(opened):
  yield opened
  assert not [line for line in opened.get_log('browser') if line['level'] == 'SEVERE']


def export(model, out, *more):
  return main(['export', '--to', 'page', '--model', str(model), '--out', str(out), *more])


@pytest.fixture
def pretended(monkeypatch):
  """In place of the runtime, for what does not run it."""
  found = {name: name.encode() for name in onnxruntime_web.FILES}
  monkeypatch.setattr(onnxruntime_web, 'files', lambda given, bar: found)


def test_the_folder_has_all_that_the_page_asks_for(root, tmp_path, pretended, capsys):
  assert export(root / 'student', tmp_path / 'out') == 0, capsys.readouterr().err
  files = {str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*')}
  assert files == {
      'index.html', 'page.css', 'page.js', 'worker.js', 'denoiser.onnx', 'steps.json', 'runtime',
      'runtime/LICENSE', 'runtime/ThirdPartyNotices.txt', 'runtime/ort.wasm.min.js',
      'runtime/ort-wasm-simd-threaded.js', 'runtime/ort-wasm-simd-threaded.wasm'}
  text = (tmp_path / 'out' / 'steps.json').read_text()
  assert str(tmp_path) not in text and str(root) not in text
  described = json.loads(text)
  assert described['model']['name'] == 'student' and described['scales'] == [0, 4]
  for name in ('index.html', 'page.css', 'page.js', 'worker.js'):
    text = (tmp_path / 'out' / name).read_text()
    assert 'https://' not in text and '//cdn' not in text
  assert 'Microsoft' in (tmp_path / 'out' / 'runtime' / 'LICENSE').read_text()


def test_what_cannot_be_is_refused_in_one_line(root, tmp_path, pretended, capsys):
  def refused(message, *more, out=tmp_path / 'out'):
    assert export(root / 'student', out, *more) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
  refused('exists', out=tmp_path)
  refused('--to page', '--platforms', 'cpu')
  refused('a page makes one image after another', '--batch-size', '2')
  for to in ('onnx', 'stablehlo'):
    refused('--runtime is of --to page', '--to', to, '--runtime', 'dist')
  refused('distilled for scales from 0 to 4', '--scale', '9')
  refused('a page guides by the scale that a student was taught', '--model', str(root / 'unet'),
          '--cfg-scale', '1', '--solver', 'ddim', '--respacing', '4')
  assert not (tmp_path / 'out').exists()


def test_without_a_runtime_nothing_is_written(root, tmp_path, capsys):
  assert export(root / 'student', tmp_path / 'out', '--runtime', str(tmp_path)) == 2
  assert f'{tmp_path} has no ort' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


@contextlib.contextmanager
def served(folder):
  """Serves files as `python -m http.server` does; gives its address, and what is asked for."""
  asked = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_request(self, code='-', size='-'):
      asked.append((self.path, int(code)))

  with http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0), functools.partial(Handler, directory=folder)) as running:
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{running.server_port}', asked
    running.shutdown()


class Page:
  """What a visitor does at the page, and what its functions say."""

  def __init__(self, browser, address):
    self.browser = browser
    browser.get(address)
    self.wait(0)

  def find(self, selector):
    return self.browser.find_element('css selector', selector)

  @property
  def done(self):
    return chromium.done(self.browser)

  def wait(self, done):
    """Until more than `done` requests were shown, and nothing is asked for, or it has failed."""
    self.browser.execute_async_script('''
        const [done, end] = arguments;
        const look = () => Number(document.body.dataset.done || 0) > done && !running
            || document.querySelector('#status.bad') ? end() : setTimeout(look, 10);
        look();''', done)
    assert self.find('#status').text == 'ready'

  def click(self, selector):
    done = self.done
    self.find(selector).click()
    self.wait(done)

  def choose(self, selector, text):
    from selenium.webdriver.support.select import Select
    done = self.done
    Select(self.find(selector)).select_by_visible_text(text)
    self.wait(done)

  def script(self, text, *given):
    return self.browser.execute_script(text, *given)

  def sample(self, x, label, scale):
    """f32[H W C] of a function of the page, from x, f32[H W C]."""
    made = self.browser.execute_async_script('''
        const [x, label, scale, end] = arguments;
        sample(Float32Array.from(x), label, scale).then(x => end(Array.from(x)));''',
        x.ravel().tolist(), label, scale)
    return np.array(made, np.float32).reshape(x.shape)

  def pixels(self, i=0):
    """uint8[H W 3] of a canvas."""
    width, height, values = self.script('''
        const canvas = document.querySelectorAll('canvas')[arguments[0]];
        const {width, height} = canvas;
        const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
        return [width, height, Array.from(data)];''', i)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

  def noise(self, seed, i, shape):
    """f32 of a shape, the noise of image i."""
    values = self.script('return Array.from(noise(...arguments))', seed, i, int(np.prod(shape)))
    return np.array(values, np.float32).reshape(shape)


def by_python(folder, x, label, scale):
  """What docs/onnx.md says: f32[H W C] from f32[H W C]."""
  session = onnxruntime.InferenceSession(folder / onnx_export.DENOISER)
  named = {'labels': np.array([label], np.int32), 'scale': np.array(scale, np.float32)}
  inputs = {each.name for each in session.get_inputs()} - {'x', 't'}
  x = x[None]
  for step in json.loads((folder / onnx_export.STEPS).read_text())['steps']:
    x0, eps = session.run(['x0', 'eps'], {'x': x, 't': np.array(step['t'], np.int32),
                                          **{name: named[name] for name in inputs}})
    after = step['alpha_bar_next']
    x = (np.sqrt(after) * x0 + np.sqrt(1 - after) * eps).astype(np.float32)
  return x[0]


@chromium.needed
@pytest.mark.parametrize('num_classes', ['student', 5, 20, None])
def test_a_browser_makes_the_images_of_onnxruntime(root, tmp_path, runtime, browser, capsys,
                                                   num_classes):
  model, out, more = root / 'student', tmp_path / 'site' / 'page', ()
  is_student = num_classes == 'student'
  if not is_student:
    model = tiny_models.unet(tmp_path / 'unet', num_classes)
    more = '--solver', 'ddim', '--respacing', '4'
  assert export(model, out, *more) == 0, capsys.readouterr().err
  with served(tmp_path / 'site') as (address, asked):  # which need not be at the top
    page = Page(browser, f'{address}/page/')
    x = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    for label, scale in ((2, 1.0), (4, 3.5)):
      wanted = by_python(out, x, label, scale)
      assert np.abs(page.sample(x, label, scale) - wanted).max() < 1e-4 * np.sqrt(
          (wanted**2).mean())
    if num_classes == 20:
      page.choose('#class', '3')
    elif num_classes is not None:
      page.click('.chips label:nth-child(4)')
    assert page.find('canvas').get_attribute('aria-label').startswith(
        'image, ' if num_classes is None else '3, ')
    seed, scale = (page.find(each).get_attribute('value') for each in ('#seed', '#scale'))
    wanted = by_python(out, page.noise(int(seed), 0, x.shape), 3, float(scale))
    wanted = np.clip((wanted + 1) * 127.5, 0, 255).astype(np.uint8)
    assert np.abs(page.pixels().astype(int) - wanted).max() <= 1  # cut off at a border, or not
    assert page.find('#scale').is_displayed() == is_student
    assert page.find('#classes').is_displayed() == (num_classes is not None)
    assert not chromium.unnamed(browser)
    assert all(path.startswith('/page/') and code == 200 for path, code in asked), asked


@pytest.fixture(scope='module')
def site(tmp_path_factory, root, runtime):
  """The address of a student's page."""
  folder = tmp_path_factory.mktemp('site') / 'out'
  assert export(root / 'student', folder) == 0
  with served(folder) as (address, _):
    yield address


@pytest.fixture
def page(site, browser):
  return Page(browser, site)


@chromium.needed
def test_the_newest_request_wins(page):
  slider, done = page.find('#scale'), page.done
  slider.send_keys(*['\ue014'] * 12)  # the right arrow's key
  page.wait(done)
  scale = float(slider.get_attribute('value'))
  assert scale == pytest.approx(3.2) and page.find('#scale-shown').text == '3.2'
  made = page.sample(page.noise(0, 0, (8, 8, 3)), 0, scale)
  wanted = np.clip((made + 1) * np.float32(127.5), 0, 255).astype(np.uint8)
  np.testing.assert_array_equal(page.pixels(), wanted)


@chromium.needed
def test_several_images_are_of_their_own_noise(page):
  before = page.pixels()
  page.choose('#num', '4')
  np.testing.assert_array_equal(page.pixels(0), before)
  assert len({page.pixels(i).tobytes() for i in range(4)}) == 4
  assert '4 images' in page.find('#took').text
  page.click('#dice')
  assert page.find('#seed').get_attribute('value') != '0'
  assert (page.pixels(0) != before).any()


@chromium.needed
def test_the_pages_noise_is_standard_normal(page):
  x = np.stack([page.noise(seed, i, 10001) for seed, i in ((0, 0), (0, 1), (1, 0), (2**32 - 1, 0))])
  assert np.abs(x.mean(1)).max() < 0.05 and np.abs(x.std(1) - 1).max() < 0.05
  assert np.abs((x**4).mean(1) - 3).max() < 0.4
  assert np.abs(np.corrcoef(x) - np.eye(4)).max() < 0.05
  assert np.abs((x[:, 1:] * x[:, :-1]).mean(1)).max() < 0.05


@chromium.needed
def test_everything_has_a_name_and_fits_a_phone(page):
  assert not chromium.unnamed(page.browser)
  assert all(page.script("return [...document.querySelectorAll('canvas')].map(c => c.ariaLabel)"))
  assert chromium.fits_a_phone(page.browser)


@chromium.needed
def test_a_file_that_is_absent_is_told(opened, tmp_path):
  shutil.copytree(pathlib.Path(static_page.__file__).parent / 'static', tmp_path / 'out')
  status = functools.partial(opened.find_element, 'css selector', '#status')
  with served(tmp_path / 'out') as (address, _):
    opened.get(address)
    opened.execute_async_script("""
        const [end] = arguments;
        const look = () => document.querySelector('#status.bad') ? end() : setTimeout(look, 10);
        look();""")
    assert 'steps.json: 404' in status().text
  opened.get((tmp_path / 'out' / 'index.html').as_uri())
  assert 'python -m http.server' in status().text
  opened.get_log('browser')
