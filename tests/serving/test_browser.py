"""The page in a real browser; skipped where there is none."""

import shlex

import chromium
import numpy as np
import pytest
from live_server import serving
from PIL import Image

from adm_jax.cli.main import main
from adm_jax.data.decoding import Decoder
from adm_jax.serving import models
from adm_jax.serving.app import Served

pytest.importorskip('selenium', reason='a browser is driven by Selenium')
pytestmark = chromium.needed


@pytest.fixture(scope='module')
def browser():
  with chromium.opened() as driver:
    yield driver


@pytest.fixture
def page(browser, port):
  browser.get(f'http://127.0.0.1:{port}/')
  page = Page(browser)
  page.wait(0)
  yield page
  assert not [line for line in browser.get_log('browser') if line['level'] == 'SEVERE']


class Page:
  """What a visitor does at the page."""

  def __init__(self, browser):
    self.browser = browser

  def find(self, selector):
    return self.browser.find_element('css selector', selector)

  def script(self, text, *given):
    return self.browser.execute_script(text, *given)

  @property
  def done(self):
    """How many requests have been shown whole."""
    return chromium.done(self.browser)

  def wait(self, done):
    """Until more than `done` requests were, and nothing is asked for."""
    self.browser.execute_async_script('''
      const [done, end] = arguments;
      const look = () => Number(document.body.dataset.done || 0) > done && running === null
          && waiting === null ? end() : setTimeout(look, 10);
      look();''', done)

  def complaint(self):
    """Waits for one."""
    self.browser.execute_async_script('''
      const look = end => document.querySelector('#status.bad') ? end() : setTimeout(look, 10, end);
      look(arguments[0]);''')
    return self.find('#status').text

  def choose(self, selector, text):
    from selenium.webdriver.support.select import Select
    done = self.done
    Select(self.find(selector)).select_by_visible_text(text)
    self.wait(done)

  def click(self, selector):
    done = self.done
    self.find(selector).click()
    self.wait(done)

  def pixels(self, guide):
    """uint8[N H W 3] of the images under a title, as the browser has decoded them."""
    return [np.array(image, np.uint8).reshape(8, 8, 4)[..., :3] for image in self.script('''
      return [...document.querySelectorAll(`[data-guide=${arguments[0]}] img`)].map(image => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const context = canvas.getContext('2d', {colorSpace: 'srgb'});
        context.drawImage(image, 0, 0);
        return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
      });''', guide)]

  @property
  def lines(self):
    """The commands and lines of Python, as they can be copied."""
    return [each.get_attribute('textContent')
            for each in self.browser.find_elements('css selector', '#lines pre')]


def test_what_one_sees_after_picking_and_sliding_is_what_sample_makes(page, tmp_path, monkeypatch,
                                                                      capsys):
  page.choose('#class', text='3')
  slider = page.find('#scale')
  before, scale = page.pixels('student')[0], float(slider.get_attribute('value'))
  done = page.done
  slider.send_keys(*['\ue014'] * 5)  # the right arrow's key
  page.wait(done)
  assert float(slider.get_attribute('value')) == pytest.approx(scale + 0.5)
  assert (page.pixels('student')[0] != before).any()
  commands = [line for line in page.lines if line.startswith('adm')]
  assert len(commands) == 4
  monkeypatch.chdir(tmp_path)
  for i, (guide, command) in enumerate(zip(('none', 'classifier', 'free', 'student'), commands)):
    words = shlex.split(command.replace('runs/live', f'runs/{i}'))
    assert main(words[1:]) == 0, capsys.readouterr().err
    made = np.load(f'runs/{i}/samples.npz')
    assert made['arr_1'].tolist() == [3]
    np.testing.assert_array_equal(page.pixels(guide), made['arr_0'])


def test_seeds_are_kept_or_drawn(page):
  seed = page.find('#seed')
  page.choose('#class', text='1')
  assert seed.get_attribute('value') == '0'
  page.click('#dice')
  drawn = seed.get_attribute('value')
  assert drawn != '0' and f'--seed {drawn}' in page.lines[0]
  page.find('#lock').click()
  page.choose('#class', text='2')
  assert seed.get_attribute('value') != drawn


def test_a_film_can_be_wound_back(page):
  page.click('#film')
  page.click('#arrows')
  assert page.find('.chart').is_displayed() and page.find('#at').is_displayed()
  assert page.script("return document.querySelectorAll('.image svg path').length") > 0
  last = page.pixels('classifier')
  page.find('#at').send_keys('\ue011')  # Home
  first = page.pixels('classifier')
  assert len(first) == len(last) == 2  # x_0 and x_t
  assert (first[0] != last[0]).any() and (first[1] != last[1]).any()
  np.testing.assert_array_equal(*last)  # at the end, x is x_0


def test_the_other_views(page, tmp_path):
  page.click('[value=grid]')
  assert len(page.script("return [...document.querySelectorAll('figure img')]")) == 5 * 5
  page.click('[value=way]')
  ends = page.pixels('student')
  assert len(ends) == 9 and '--interpolate 0,1' in page.lines[0]
  page.find('[value=own]').click()
  picture = np.random.default_rng(0).integers(0, 256, (11, 9, 3), np.uint8)
  Image.fromarray(picture).save(tmp_path / 'own.png')
  done = page.done
  page.find('#file').send_keys(str(tmp_path / 'own.png'))
  page.wait(done)
  own = Decoder(8)((tmp_path / 'own.png').read_bytes())
  assert np.abs(page.pixels('none')[0].astype(int) - own).mean() < 60  # 5 to 20 steps lose some
  done = page.done
  page.find('#file').send_keys(str(tmp_path / 'own.png'))  # the same once more
  page.wait(done)
  (tmp_path / 'none.png').write_text('no picture')
  page.find('#file').send_keys(str(tmp_path / 'none.png'))
  assert 'no image' in page.complaint()
  page.browser.get_log('browser')  # in which the browser notes the 400


def test_everything_has_a_name_and_fits_a_phone(page):
  assert not chromium.unnamed(page.browser)
  assert all(page.script("return [...document.images].map(image => image.alt)"))
  assert chromium.fits_a_phone(page.browser)


def test_of_a_student_alone_there_is_nothing_to_choose_that_it_ignores(browser, root):
  with serving(Served(models.offered(str(root / 'student')))) as port:
    browser.get(f'http://127.0.0.1:{port}/')
    page = Page(browser)
    page.wait(0)
    assert len(page.pixels('student')) == 1
    for selector in ('#solver', '#steps', '#spacing', '#eta', '[value=own]'):
      assert not page.find(selector).is_displayed()
    assert page.find('#student-steps').is_displayed()


def test_an_answer_that_is_not_the_servers_is_told(browser, port):
  """A proxy's, for example."""
  browser.get(f'http://127.0.0.1:{port}/')
  page = Page(browser)
  page.wait(0)
  page.script('''window.fetch = async () => new Response('<html>', {
    status: 502, statusText: 'Bad Gateway'});''')
  page.find('#dice').click()
  assert page.complaint() == '502 Bad Gateway'


def test_a_server_that_has_gone_is_told(browser, offered):
  with serving(Served(offered)) as port:
    browser.get(f'http://127.0.0.1:{port}/')
    page = Page(browser)
    page.wait(0)
  page.find('#dice').click()
  assert 'the server has gone' in page.complaint()
  browser.get_log('browser')
