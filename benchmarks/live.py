"""How the live page keeps up, and the picture of it that docs/live.md shows.

    python benchmarks/live.py [--student DIR] [--picture docs/live.png]

Starts `adm serve` twice, once for what compiles, and prints rows of docs/live.md's table.
"""

import argparse
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from typing import Iterator


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--student', help='default: the one that comes with the package')
  parser.add_argument('--picture', help='where the picture of the page goes; needs selenium')
  arguments = parser.parse_args()
  words = ['--port', '0']
  if arguments.student is not None:
    words += ['--model', 'fashion', '--classifier', 'fashion-classifier', '--student',
              arguments.student]
  with serving(words):
    pass
  begin = time.perf_counter()
  with serving(words) as port:
    row('command to the first images ready', f'{time.perf_counter() - begin:.1f} s')
    visitor = Visitor(port)
    begin = time.perf_counter()
    visitor.ask(1, 2.0)
    row('first image after that', f'{time.perf_counter() - begin:.2f} s')
    for num in (1, 8):
      visitor.ask(num, 2.0)
      begin = time.perf_counter()
      moves = 40
      for i in range(moves):
        visitor.ask(num, 1 + 2 * i / moves)
      row(f'moves of the slider, {num} at once', f'{moves / (time.perf_counter() - begin):.1f} /s')
    if arguments.picture is not None:
      draw(port, arguments.picture)


def row(*cells: str) -> None:
  print('|', ' | '.join(cells), '|', flush=True)


@contextlib.contextmanager
def serving(words: list[str]) -> Iterator[int]:
  """`adm serve`, once it is ready: its port."""
  process = subprocess.Popen([sys.executable, '-m', 'adm_jax.cli.main', 'serve', *words],
                             stdout=subprocess.PIPE, text=True)
  try:
    port = int(process.stdout.readline().rsplit(':', 1)[1].strip('/\n'))
    ready = process.stdout.readline()
    if not ready.startswith('ready'):
      raise SystemExit(ready)
    yield port
  finally:
    begin = time.perf_counter()
    process.terminate()
    process.wait()
    row('SIGTERM to the end', f'{time.perf_counter() - begin:.2f} s')


class Visitor:
  """Asks for images of the student's, one request after another."""

  def __init__(self, port: int):
    self._line = http.client.HTTPConnection('127.0.0.1', port)
    self._line.request('GET', '/api/offers')
    model = json.loads(self._line.getresponse().read())['models'][0]
    if 'student' not in model['guides']:
      raise SystemExit(f'{model["name"]} has no student here: name one with --student')
    self._words = {'model': model['name'], 'guide': 'student', 'classes': [8], 'seed': 0,
                   'steps': max(model['taught_steps'])}
    self._number = 0

  def ask(self, num: int, scale: float) -> None:
    self._number += 1
    runs = [{**self._words, 'num': num, 'scale': scale}]
    self._line.request(
        'POST', '/api/run',
        json.dumps({'visitor': '00c0ffee', 'number': self._number, 'runs': runs}),
        {'Content-Type': 'application/json'})
    text = self._line.getresponse().read().decode()
    if 'event: image' not in text:
      raise SystemExit(text)


def draw(port: int, path: str) -> None:
  """Takes the picture: a bag, side by side, with its film."""
  from PIL import Image
  from selenium import webdriver
  options = webdriver.ChromeOptions()
  for word in ('--headless=new', '--no-sandbox', '--disable-gpu', '--window-size=1200,860'):
    options.add_argument(word)
  options.binary_location = shutil.which('chromium')
  browser = webdriver.Chrome(options=options,
                             service=webdriver.ChromeService(shutil.which('chromedriver')))
  browser.set_script_timeout(300)
  try:
    browser.get(f'http://127.0.0.1:{port}/')
    for scale in (2, 3):  # of which the first compiles
      browser.execute_async_script('''
        const [scale, end] = arguments;
        for (const [id, value] of [['class', 8], ['scale', scale], ['num', 4]]) $(id).value = value;
        $('class').dispatchEvent(new Event('change', {bubbles: true}));
        const look = () => running === null && waiting === null ? end() : setTimeout(look, 50);
        setTimeout(look, 200);''', scale)
    browser.save_screenshot(path)
  finally:
    browser.quit()
  # 64 colors are enough for a page, at a third of the bytes.
  Image.open(path).convert('RGB').quantize(64).save(path, optimize=True)


if __name__ == '__main__':
  main()
