// The page of `adm serve`. It asks for runs in the words of `adm sample`, newest first, and shows
// what the server streams back. No libraries; nothing is fetched from elsewhere.
'use strict';

const GUIDES = {none: 'unguided', classifier: 'by the classifier', free: 'classifier-free',
                student: 'student'};
const VISITOR = Array.from(crypto.getRandomValues(new Uint8Array(8)),
                           byte => byte.toString(16).padStart(2, '0')).join('');
const PATIENCE = 150;  // ms that a run in progress may still take before a newer one takes its place
const GRID_SCALES = 5, WAY_IMAGES = 9;
const $ = id => document.getElementById(id);

let offers = null;    // of the server
let file = null;      // a dropped picture
let own = null;       // {pixels, png}: what the model sees of it
let shown = [];       // the figures of the latest request: {figure, guide, images, frames, ...}
let number = 0;       // of the latest request
let running = null;   // {number, begin, abort}
let waiting = null;   // a timer
let updates = 0;      // requests whose images have all come, for whoever measures

// ---- what is asked for ------------------------------------------------------------------------

const model = () => offers.models.find(each => each.name === $('model').value);
const view = () => document.querySelector('[name=view]:checked').value;
const whole = (id, most) => Math.min(most, Math.max(0, Math.floor(Number($(id).value) || 0)));
const seed = () => whole('seed', 2 ** 32 - 1);

// Whether all there is to see was taught its steps, and takes no solver.
const isTaught = () => model().taught_steps && model().guides.every(guide => guide === 'student');

function scaleOf(guide, scale) {  // what a student was not taught, it cannot be told
  const taught = model().scales;
  if (guide === 'none') return 0;  // so that moves of the slider do not ask for it again
  return guide === 'student' ? Math.min(taught[1], Math.max(taught[0], scale)) : scale;
}

function run(guide, more = {}) {
  const taught = guide === 'student' && model().taught_steps;
  const classes = model().classes.length ? [Number($('class').value)] : [];
  const course = taught ? {steps: Number($('student-steps').value)} : {
    steps: Number($('steps').value), solver: $('solver').value,
    spacing: $('spacing').value || null, eta: Number($('eta').value)};
  const scale = scaleOf(guide, 'scale' in more ? more.scale : Number($('scale').value));
  return {model: model().name, guide, classes, num: Number($('num').value), seed: seed(),
          ...course, ...more, scale};
}

// Each view gives the runs of one request, and a title for each.
const VIEWS = {
  side: () => model().guides.map(guide => [run(guide), GUIDES[guide]]),
  grid: () => {
    const guide = $('guide').value, count = Math.min(model().classes.length, offers.most_images);
    const classes = Array.from({length: count}, (_, i) => i);
    const most = Number($('scale').value) || 4;
    return Array.from({length: GRID_SCALES}, (_, i) => scaleOf(guide, most * i / (GRID_SCALES - 1)))
        .filter((scale, i, all) => guide !== 'none' && all.indexOf(scale) === i || !i)
        .map(scale => [run(guide, {scale, classes, num: Math.max(count, 1)}),
                       guide === 'none' ? GUIDES[guide] : `scale ${scale.toFixed(1)}`]);
  },
  way: () => [[run($('guide').value, {until: whole('until', 2 ** 32 - 1), num: WAY_IMAGES}),
               `from seed ${seed()} to seed ${whole('until', 2 ** 32 - 1)}`]],
  own: () => own === null ? [] : model().guides.filter(guide => guide !== 'student').map(guide => [
    run(guide, {pixels: own.pixels, solver: 'ddim', spacing: null, eta: 0, num: 1,
                ...(model().classes.length ? {origin: Number($('origin').value)} : {})}),
    GUIDES[guide]]),
};

// ---- asking: at most one request at a time, and always the newest --------------------------------

function ask() {
  clearTimeout(waiting);
  const left = running === null ? 0 : PATIENCE - (performance.now() - running.begin);
  if (left > 0) waiting = setTimeout(ask, left);  // or when the one in progress ends
  else send();
}

async function send() {
  clearTimeout(waiting);
  waiting = null;
  if (running !== null) running.abort.abort();
  const runs = VIEWS[view()]();
  const me = running = {number: ++number, begin: performance.now(), abort: new AbortController()};
  const looks = ['side', 'own'].includes(view()), film = looks && $('film').checked;
  const wanted = {film, score: film, arrows: looks && $('arrows').checked};
  const asked = prepare(runs, wanted);
  if (!asked.length) {
    running = null;
    document.body.dataset.done = ++updates;
    return say(runs.length ? '' : 'drop a picture');
  }
  try {
    const answer = await fetch('api/run', {
      method: 'POST', signal: me.abort.signal, headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({visitor: VISITOR, number: me.number, ...wanted,
                            runs: asked.map(place => place.words)})});
    if (!answer.ok) throw new Error(await complaint(answer));
    for await (const [name, data] of events(answer.body)) {
      if (running !== me) return;
      hear(name, data, asked[data.run]);
    }
    if (running === me) document.body.dataset.done = ++updates;
  } catch (error) {
    if (error.name !== 'AbortError' && running === me) tell(error);
    me.abort.abort();
  } finally {
    if (running === me) {
      running = null;
      if (waiting !== null) send();
    }
  }
}

// What is wrong, of an answer that may not be the server's own: a proxy's is no JSON.
const complaint = async answer =>
    (await answer.json().catch(() => ({}))).error || `${answer.status} ${answer.statusText}`;

function tell(error) {
  say(error instanceof TypeError ? 'the server has gone: start adm serve again' : error.message, true);
}

async function* events(stream) {  // server-sent events: [name, data]
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const blocks = (text += value).split('\n\n');
    text = blocks.pop();
    for (const block of blocks.filter(block => !block.startsWith(':'))) {
      const [event, data] = block.split('\n');
      yield [event.slice('event: '.length), JSON.parse(data.slice('data: '.length))];
    }
  }
}

function hear(name, data, place) {
  if (name === 'loading') say(`loading ${data.model} ...`);
  else if (name === 'compiling') say(`compiling ${place.title}, this once ...`);
  else if (name === 'failed') say(data.error, true);
  else if (name === 'done') say('');
  else if (name === 'part' || name === 'image') {
    if (name === 'image') Object.assign(place, {images: data.images, finished: data});
    if (data.x0) place.frames.push(data);
    draw(place, name === 'part' ? data.x0 : data.images);
    if (name === 'image') finish(place, data);
    else say(`step ${data.step} of ${data.steps}`);
  }
}

function say(words, bad = false) {
  $('status').textContent = words || 'ready';
  $('status').classList.toggle('bad', bad);
}

// ---- what is shown ------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = name === 'svg' || SHAPES.includes(name)
      ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const SHAPES = ['path', 'polyline', 'line', 'title'];

// Figures for the runs; those that are there stay until new images come. Returns those to ask for:
// what is shown already is not, and a student, the fastest, comes first.
function prepare(runs, wanted) {
  const key = JSON.stringify(runs.map(([each, title]) => [each.guide, each.num, title]));
  if ($('shown').dataset.key !== key) {
    $('shown').dataset.key = key;
    $('shown').classList.toggle('lines', ['grid', 'way'].includes(view()));
    shown = runs.map(() => ({}));
    $('shown').replaceChildren(...runs.map(([, title], i) => {
      const images = element('div', {class: 'images'}), caption = element('figcaption');
      const chart = element('div'), figure = element('figure', {}, element('h2', {}, title), images,
                                                     chart, caption);
      Object.assign(shown[i], {figure, grid: images, caption, chart});
      return figure;
    }));
  }
  const asked = shown.filter((place, i) => {
    const [words, title] = runs[i], exactly = JSON.stringify([words, wanted]);
    if (place.finished && place.exactly === exactly) return false;
    const clipped = view() === 'side' && words.guide === 'student'
        && words.scale !== Number($('scale').value);
    Object.assign(place, {words, title, exactly, clipped, frames: [], finished: null});
    place.figure.classList.add('waits');
    place.figure.dataset.guide = words.guide;
    place.grid.style.setProperty('--columns', ['grid', 'way'].includes(view())
        ? Math.min(words.num, innerWidth < 740 ? 5 : 16)
        : Math.max(Math.ceil(Math.sqrt(words.num)), $('film').checked ? 2 : 1));
    return true;
  });
  list();
  $('scrub').hidden = !shown.some(place => place.finished && place.frames[0]?.x);
  return asked.sort((a, b) => (b.words.guide === 'student') - (a.words.guide === 'student'));
}

function list() {  // the commands that make what is shown
  $('lines').replaceChildren(...shown.filter(place => place.finished).flatMap(place => {
    const {command, python} = place.finished;
    return [element('h3', {}, place.title), ...[command, python].filter(Boolean).map(text => {
      const button = element('button', {type: 'button'}, 'Copy');
      button.addEventListener('click', () => copy(text, button));
      return element('div', {}, element('pre', {}, text), button);
    })];
  }));
}

function describe(place, i) {
  const names = model().classes, {classes, num} = place.words;
  const {guide, pixels, scale, seed, until} = place.words;
  const label = (i < num ? '' : 'x_t of ')
      + (classes.length ? names[classes[i % num % classes.length]] : 'image');
  const guidance = GUIDES[guide] + (guide === 'none' ? '' : ` at scale ${scale.toFixed(1)}`);
  const start = pixels ? 'your picture' : until === undefined ? `seed ${seed}`
      : `from seed ${seed} to ${until}`;
  return `${label}, ${guidance}, ${start}${num > 1 ? `, ${i % num + 1} of ${num}` : ''}`;
}

function draw(place, pngs) {
  while (place.grid.children.length > pngs.length) place.grid.lastChild.remove();
  pngs.forEach((png, i) => {
    const address = `data:image/png;base64,${png}`;
    let cell = place.grid.children[i];
    if (!cell) {
      cell = element('div', {class: 'image'}, element('img'), element('a', {download: ''}, 'PNG'),
                     element('span'));
      place.grid.append(cell);
    }
    const words = describe(place, i), [image, link, name] = cell.querySelectorAll('img, a, span');
    name.textContent = view() === 'grid' ? words.split(',')[0] : '';
    Object.assign(image, {src: address, alt: words, title: words});
    Object.assign(link, {href: address, ariaLabel: `download ${words}`,
                         download: words.replace(/[^a-z0-9.]+/gi, '_') + '.png'});
  });
}

function finish(place, data) {
  place.figure.classList.remove('waits');
  const took = data.compiled ? `${(data.ms / 1000).toFixed(1)} s with compiling`
                             : `${data.ms.toFixed(0)} ms`;
  const clipped = place.clipped
      ? `, told ${place.words.scale.toFixed(1)}, the nearest that it was taught` : '';
  place.took = `${took}, ${data.evaluations} evaluations${clipped}`;
  place.caption.textContent = place.took;
  list();
  const films = shown.filter(each => each.frames.length && each.frames[0].x);
  $('scrub').hidden = !films.length;
  if (films.length) {
    $('at').max = Math.max(...films.map(each => each.frames.length - 1));
    $('at').value = $('at').max;
    scrub();
  }
  if (!films.includes(place)) overlay(place, data);
  if (!$('film').checked) place.chart.replaceChildren();
}

const percent = share => `${(100 * share).toFixed(0)} %`;

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);  // which browsers allow on this machine, and by https
    button.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(button.previousSibling);
    button.textContent = 'Selected: press Ctrl+C';
  }
}

function scrub() {  // shows x_0 and x_t of one moment of all films, however many parts each has
  const share = Number($('at').value) / Math.max(1, Number($('at').max));
  for (const place of shown) {
    const at = Math.round(share * (place.frames.length - 1)), frame = place.frames[at];
    if (!frame?.x || !place.finished) continue;
    const isLast = at === place.frames.length - 1;
    draw(place, [...(isLast ? place.images : frame.x0), ...frame.x]);
    overlay(place, frame);
    chart(place, at);
    place.caption.textContent = place.took
        + ` \u2013 x\u2080 and x after step ${frame.step} of ${frame.steps}`
        + (frame.score ? `, ${percent(frame.score[0])} sure` : '');
  }
}

function overlay(place, data) {  // arrows: where the classifier wants it brighter, or darker
  const cell = place.grid.firstChild;
  cell.querySelector('svg')?.remove();
  if (!data.arrows || !$('arrows').checked) return;
  const rows = data.arrows.length, columns = data.arrows[0].length;
  const svg = element('svg', {viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: 'none',
                              'aria-hidden': 'true'});
  data.arrows.forEach((row, i) => row.forEach((value, j) => {
    const x = j + 0.5, half = 0.42 * value, tip = i + 0.5 - half, head = Math.sign(value) * 0.13;
    if (Math.abs(value) < 0.08) return;
    svg.append(element('path', {class: value > 0 ? 'up' : 'down', d:
      `M${x} ${i + 0.5 + half}V${tip}M${x - 0.12} ${tip + head}L${x} ${tip}L${x + 0.12} ${tip + head}`}));
  }));
  cell.append(svg);
}

function chart(place, at) {  // p(class | x_t) over the steps
  const scores = place.frames.map(frame => frame.score?.[0]).filter(score => score !== undefined);
  if (!scores.length) return place.chart.replaceChildren();
  const last = Math.max(1, scores.length - 1);
  place.chart.replaceChildren(element(
      'svg', {class: 'chart', viewBox: `0 0 ${last} 1`, preserveAspectRatio: 'none', role: 'img'},
      element('title', {}, `how sure the classifier is of the class, step by step: ${
          scores.map(score => score.toFixed(2)).join(', ')}`),
      element('line', {x1: Math.min(at, last), x2: Math.min(at, last), y1: 0, y2: 1}),
      element('polyline', {points: scores.map((score, i) => `${i},${1 - score}`).join(' ')})));
}

// ---- controls ---------------------------------------------------------------------------------

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element('option', {value}, String(text))));
  if (chosen !== undefined) select.value = chosen;
  select.closest('label').hidden = options.length < 2;
}

function fillModel() {
  const {classes, guides, taught_steps: taught, scales} = model();
  const named = classes.map((name, i) => [i, name]);
  fill($('class'), named);
  fill($('origin'), named);
  fill($('guide'), guides.map(guide => [guide, GUIDES[guide]]), guides[guides.length - 1]);
  fill($('student-steps'), (taught || []).map(steps => [steps, steps]),
       taught ? Math.max(...taught) : '');
  $('scale').disabled = guides.length === 1 && guides[0] === 'none';
  if (guides.length === 1 && scales) [$('scale').min, $('scale').max] = scales;
  ownView().disabled = guides.every(guide => guide === 'student');  // which encodes nothing
  ownView().closest('label').hidden = ownView().disabled;
  if (ownView().disabled && ownView().checked) document.querySelector('[value=side]').checked = true;
  $('scale-shown').textContent = Number($('scale').value).toFixed(1);
}

function adapt() {  // what of the controls makes sense
  const solver = offers.solvers.find(each => each.name === $('solver').value);
  $('spacing').disabled = solver.neighbors_only;
  if (solver.neighbors_only) $('spacing').value = '';
  $('eta').disabled = !solver.eta;
  if (!solver.eta) $('eta').value = 0;
  for (const label of document.querySelectorAll('[data-of]')) {
    label.hidden = !label.dataset.of.split(' ').includes(view())
        || label.querySelector('select')?.options.length < 2;
  }
  $('arrows').closest('label').hidden ||= model().classifier === null;
  for (const id of ['steps', 'solver', 'spacing', 'eta']) $(id).closest('label').hidden = isTaught();
}

async function read(picture) {
  if (!picture || ownView().disabled) return;
  const name = model().name;
  file = picture;
  own = null;
  try {
    const answer = await fetch(`api/crop?model=${encodeURIComponent(name)}`,
                               {method: 'POST', body: picture});
    if (!answer.ok) throw new Error(await complaint(answer));
    const found = await answer.json();
    if (file !== picture || model().name !== name) return;  // there is a newer one
    own = found;
    ownView().checked = true;
    adapt();
    send();
  } catch (error) {
    if (file === picture) tell(error);
  }
}

const ownView = () => document.querySelector('[name=view][value=own]');

function roll() {
  $('seed').value = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
}

function listen() {
  $('panel').addEventListener('submit', event => event.preventDefault());
  const changed = event => {
    const {id, type} = event.target;
    if (id === 'lock' || id === 'file') return;
    // Numbers act while they move, the others once they have changed.
    if ((event.type === 'input') !== ['range', 'number'].includes(type)) return;
    if (id === 'model') {
      own = null;
      fillModel();
      if (view() === 'own') read(file);
    }
    if (!$('lock').checked && ['class', 'model'].includes(id)) roll();
    $('scale-shown').textContent = Number($('scale').value).toFixed(1);
    adapt();
    ask();
  };
  for (const kind of ['input', 'change']) $('panel').addEventListener(kind, changed);
  $('dice').addEventListener('click', () => { roll(); ask(); });
  $('file').addEventListener('change', event => {
    read(event.target.files[0]);
    event.target.value = '';  // so that the same one can be chosen again
  });
  $('at').addEventListener('input', scrub);
  for (const kind of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(kind, event => {
      event.preventDefault();
      $('drop').classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') read(event.dataTransfer.files[0]);
    });
  }
}

async function open() {
  const answer = await fetch('api/offers');
  if (!answer.ok) throw new Error(await complaint(answer));
  offers = await answer.json();
  const names = list => list.map(each => [each, each]);
  fill($('model'), offers.models.map(each => [each.name, each.name]));
  fill($('solver'), offers.solvers.map(each => [each.name, each.name]), 'dpm++2m');
  fill($('spacing'), [['', 'respaced'], ...names(offers.spacings)], 'karras');
  fill($('steps'), names(offers.steps), 20);
  fill($('eta'), names(offers.etas), 0);
  fill($('num'), names([1, 2, 4, 8, 16].filter(num => num <= offers.most_images)), 1);
  fillModel();
  listen();
  adapt();
  ask();
}

open().catch(tell);
