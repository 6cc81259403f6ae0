"""The server as its visitors, and those who are none, meet it over HTTP."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import uvicorn
from live_server import Visitor, events, serving
from PIL import Image

from adm_jax.devices import compile_times
from adm_jax.serving import app as app_lib
from adm_jax.serving import server
from adm_jax.serving.app import MOST_UPLOAD, MOST_WORDS, Served


def test_of_a_thousand_random_moves_the_last_one_stays_and_nothing_compiles(port, words):
  """Moves come from several connections at once, as a browser sends them, and may overtake."""
  visitor, rng = Visitor(port, 'a' * 16), random.Random(0)
  visitor.ask([words('student')])
  moves = [round(rng.uniform(0, 4), 2) for _ in range(1000)]
  first = next(Visitor._numbers)

  def move(i):
    status, text = visitor.send('POST', '/api/run', json.dumps({
        'visitor': visitor.name, 'number': first + i, 'runs': [words('student', scale=moves[i])]}))
    return status, events(text) if status == 200 else []
  with compile_times.listening() as spans:
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
      answers = list(pool.map(move, range(1000)))
  assert spans.seconds('compiling') == 0
  assert {status for status, _ in answers} <= {200, 409}  # 409: overtaken on its way
  ends = [found[-1][0] if found else 'overtaken' for _, found in answers]
  assert set(ends) <= {'done', 'dropped', 'overtaken'} and ends[-1] == 'done'
  last = dict(answers[-1][1])['image']
  for _ in range(1000):
    next(Visitor._numbers)
  again = dict(visitor.ask([words('student', scale=moves[-1])]))['image']
  assert last['images'] == again['images']
  assert again['images'] != dict(visitor.ask([words('student', scale=0.1)]))['image']['images']


def test_twenty_visitors_share_a_thread_with_one_who_never_reads_and_one_who_leaves(port, words):
  """None waits for another's whole run, and the server remembers nothing of them."""
  end, counts = time.monotonic() + 3, [0] * 20
  long = words('none', num=16)
  Visitor(port).ask([words('student'), long])  # compiled before the time counts

  def body(visitor, runs, **more):
    return json.dumps({'visitor': visitor, 'number': 10**9, 'runs': runs, **more}).encode()

  def sent(text):
    line = socket.create_connection(('127.0.0.1', port))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    line.sendall(b'POST /api/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
                 b'Content-Length: %d\r\n\r\n' % len(text) + text)
    return line

  def play(i):
    visitor = Visitor(port, f'{i:08x}')
    while time.monotonic() < end:
      names = [name for name, _ in visitor.ask([words('student', seed=i)])]
      assert names[-2:] == ['image', 'done'], names
      counts[i] += 1
  before = _resident()
  with contextlib.closing(sent(body('d' * 8, [long] * 16, film=True))):
    leaving = sent(body('e' * 8, [long] * 16, film=True))
    assert leaving.recv(100).startswith(b'HTTP/1.1 200')
    leaving.close()
    end = time.monotonic() + 3
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
      list(pool.map(play, range(20)))
  assert min(counts) >= 1 and max(counts) <= 3 * min(counts) + 2, counts
  assert _resident() - before < 100e6
  assert Visitor(port).ask([words('student')])[-1][0] == 'done'


def _resident():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


JUNK = (None, True, -1, 0, 1e308, 2**70, float('nan'), '', 'x' * 3000, '../../etc/passwd',
        '\x1b[2J', [], [[]], {}, {'a': []}, [None] * 100, '\ud800', ['unet'], 0.5, -0.0)


def mutated(rng, request):
  """A request with one thing wrong."""
  request = json.loads(json.dumps(request))
  place = request if rng.random() < 0.4 else request['runs'][0]
  name = rng.choice(sorted(place))
  if rng.random() < 0.2:
    del place[name]
  elif rng.random() < 0.2:
    place[name + 's' * (place is not request)] = place.pop(name) if place is not request else None
  else:
    place[name] = rng.choice([junk for junk in JUNK if junk != place[name]])
  return request


def test_two_hundred_wrong_requests_are_each_one_line(port, words):
  rng, visitor = random.Random(1), Visitor(port, 'f' * 8)
  for i in range(200):
    good = {'visitor': 'f' * 8, 'number': i, 'runs': [words('student')], 'film': False}
    status, text = visitor.send('POST', '/api/run', json.dumps(mutated(rng, good)))
    if status == 200:  # what was changed makes sense, as a seed of 0 does
      assert events(text)[-1][0] in ('done', 'dropped')
      continue
    assert 400 <= status < 500 and text.count('\n') == 0, (status, text)
    assert len(json.loads(text)['error']) < 600 and text.isprintable()
  assert Visitor(port).ask([words('student')])[-1][0] == 'done'


@pytest.mark.parametrize('method, path, body, headers, status', [
    ('GET', '/../../etc/passwd', None, {}, 404),
    ('GET', '/%2e%2e/%2e%2e/etc/passwd', None, {}, 404),
    ('GET', '/page/../page.js', None, {}, 404),
    ('GET', '//etc/passwd', None, {}, 404),
    ('DELETE', '/api/run', None, {}, 405),
    ('GET', '/api/run', None, {}, 405),
    ('POST', '/api/run', '{}', {'Content-Type': 'text/plain'}, 415),
    ('POST', '/api/run', '{', {}, 400),
    ('POST', '/api/run', '[' * 100_000, {}, 400),
    ('POST', '/api/run', b'\xff\xfe', {}, 400),
    ('POST', '/api/run', '[]', {}, 400),
    ('POST', '/api/run', ' ' * 2 * MOST_WORDS, {}, 413),
    ('POST', '/api/run', '{}', {'Origin': 'https://example.com'}, 403),
    ('POST', '/api/run', '{}', {'Origin': 'null'}, 403),
    ('POST', '/api/run', '{}', {'Host': 'example.com'}, 421),
    ('GET', '/', None, {'Host': '127.0.0.1.example.com:80'}, 421),
    ('GET', '/api/offers', None, {'Host': '[::1'}, 421),
    ('POST', '/api/crop?model=/etc/passwd', b'x', {}, 400),
    ('POST', '/api/crop', b'x', {}, 400),
    ('POST', '/api/crop?model=MODEL', b'no picture', {}, 400),
    ('POST', '/api/crop?model=MODEL', b'', {}, 400),
    ('POST', '/api/crop?model=MODEL', b' ' * (MOST_UPLOAD + 1), {}, 413),
    ('POST', '/api/crop?model=MODEL', b'x', {'Content-Length': 'many'}, 400),
])
def test_what_is_not_for_visitors_is_refused_in_one_line(visitor, offered, method, path, body,
                                                         headers, status):
  path = path.replace('MODEL', offered[0].name)
  try:
    found, text = visitor.send(method, path, body, **headers)
  except ConnectionError:  # it was told before it had sent everything
    assert status == 413 or 'Content-Length' in headers
    return
  assert found == status and text.count('\n') == 0, (found, text)
  assert 'root:' not in text
  assert visitor.send('GET', '/')[0] == 200


def test_a_picture_of_too_many_pixels_is_not_decoded(visitor, offered):
  file = io.BytesIO()
  Image.new('1', (5000, 4000)).save(file, 'PNG')  # 3 kB
  status, text = visitor.send('POST', f'/api/crop?model={offered[0].name}', file.getvalue())
  assert status == 400 and '4,000 x 5,000 pixels: at most' in text


def test_bytes_that_are_no_http_end_in_one_line(port, visitor):
  for junk in (b'\x00' * 100, b'GET\r\n\r\n', b'POST /api/run HTTP/1.1\r\n' + b'x' * 50_000):
    with socket.create_connection(('127.0.0.1', port), timeout=10) as line:
      line.sendall(junk)
      if not junk.startswith(b'\x00'):
        assert line.recv(1000).startswith(b'HTTP/1.1 4')
  assert visitor.send('GET', '/')[0] == 200


def test_the_page_comes_whole_and_from_nowhere_else(visitor):
  for path, kind in (('/', '<!doctype html>'), ('/page.css', ':root'), ('/page.js', 'use strict')):
    status, text = visitor.send('GET', path)
    assert status == 200 and kind in text
    assert 'http://' not in text.replace('http://www.w3.org/2000/svg', '') and '//cdn' not in text


def test_a_server_for_others_wants_its_token(offered):
  with serving(Served(offered, token='secret')) as port:
    line = Visitor(port)
    for path in ('/', '/api/offers', '/?token=', '/?token=Secret'):
      status, text = line.send('GET', path, Host='example.com')
      assert status == 401 and 'token' in text
    assert line.send('GET', '/', Cookie=f'adm_token_{port}=wrong')[0] == 401
    assert line.send('GET', '/', Cookie=f'adm_token_{port + 1}=secret')[0] == 401
    assert line.send('GET', '/?token=secret', Host='example.com')[0] == 200
    for others in ('', 'a={"x":1}; ', 'a[b]=1; ', 'x; '):  # of other servers of this host
      assert line.send('GET', '/api/offers', Cookie=f'{others}adm_token_{port}=secret')[0] == 200


def test_the_token_of_the_address_becomes_a_cookie_that_opens_the_rest(offered):
  """As a browser does it, which loads the script without the token."""
  with serving(Served(offered, token='secret')) as port:
    line = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    with contextlib.closing(line):
      line.request('GET', '/?token=secret')
      answer = line.getresponse()
      answer.read()
      cookie = answer.headers['Set-Cookie']
      assert 'HttpOnly' in cookie and 'SameSite=Strict' in cookie
      for path in ('/page.js', '/api/offers'):
        line.request('GET', path, headers={'Cookie': cookie.partition(';')[0]})
        answer = line.getresponse()
        assert answer.status == 200 and answer.read()
        assert answer.headers['Set-Cookie'] is None
    policy = answer.headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers['X-Content-Type-Options'] == 'nosniff'


@pytest.mark.parametrize('host, is_open', [('0.0.0.0', False), ('127.0.0.1', True)])
def test_a_host_that_others_reach_has_a_token(offered, monkeypatch, host, is_open):
  ran, said = [], []
  monkeypatch.setattr(uvicorn.Server, 'run', lambda self, sockets: ran.append(self.config.app))
  with server.listen(host, 0) as bound:
    server.serve(offered, bound, host, said.append)
  guard, = ran
  assert (guard.token is None) == is_open
  assert said[0].endswith('/' if is_open else f'/?token={guard.token}')


def test_a_server_at_all_addresses_is_called_by_its_machines_name():
  assert server.address('0.0.0.0', 80, 'a') == f'http://{socket.gethostname()}:80/?token=a'
  assert server.address('::1', 80, None) == 'http://[::1]:80/'


def test_who_waits_for_long_hears_that_the_server_is_there(visitor, words, monkeypatch):
  """Or a proxy would give up."""
  monkeypatch.setattr(app_lib, '_SECONDS_OF_SILENCE', 0.001)
  status, text = visitor.post({'runs': [words('none', num=16)]})
  assert status == 200 and '\n\n: waiting\n\n' in text
  assert [name for name, _ in events(text)][-2:] == ['image', 'done']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_it_within_two_seconds_whatever_runs(root, offered, words, number):
  process = subprocess.Popen(
      [sys.executable, '-m', 'adm_jax.cli.main', 'serve', '--model', str(root / 'unet'),
       '--port', '0'], stdout=subprocess.PIPE, text=True)
  try:
    port = int(process.stdout.readline().rsplit(':', 1)[1].strip('/\n'))
    long = words('none', solver='ddim', spacing=None, steps=250, num=16)
    threading.Thread(target=_ask_in_vain, args=(port, [long] * 16), daemon=True).start()
    time.sleep(1)  # it samples, or compiles
    begin = time.monotonic()
    process.send_signal(number)
    process.wait(10)
    assert time.monotonic() - begin < 2
  finally:
    process.kill()


def _ask_in_vain(port, runs):
  with contextlib.suppress(Exception):  # the server goes
    Visitor(port).ask(runs)
