// Makes images in this browser: the loop of DDIM over steps.json, around the network of worker.js.
// No libraries but onnxruntime-web, which lies in runtime/; nothing is fetched from elsewhere.
'use strict';

const PATIENCE = 150;  // ms that a request may still take when a newer one has come
const SLOW = 500;      // ms after which what the network believes is shown at every step
const CHIPS = 12;      // as many classes have a button each, more are a list
const $ = id => document.getElementById(id);

let about = null;      // steps.json
let worker = null;
const asked = new Map();  // evaluations that the worker has been asked for: {resolve, reject}
let wanted = null;     // the newest request that is not begun
let running = false;
let done = 0;          // requests whose images have all been shown, for whoever measures

// ---- images: from standard normal x, DDIM without noise ---------------------------------------

// f32[count], standard normal, a function of the seed and the image's number. The generator is
// sfc32 and Box-Muller's, not JAX's: `adm sample` makes other images of the same seed.
function noise(seed, index, count) {
  let [a, b, c, d] = [seed | 0, index | 0, 0x9e3779b9 | 0, 1];
  const next = () => {
    const sum = (a + b | 0) + d | 0;
    d = d + 1 | 0;
    a = b ^ b >>> 9;
    b = c + (c << 3) | 0;
    c = (c << 21 | c >>> 11) + sum | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < 20; i++) next();  // until seeds that are near have nothing in common
  const x = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((next() + 1) / 2 ** 32));  // of a number in (0, 1]
    const angle = 2 * Math.PI * next() / 2 ** 32;
    x[i] = radius * Math.cos(angle);
    if (i + 1 < count) x[i + 1] = radius * Math.sin(angle);
  }
  return x;
}

// {x0, eps}, f32[H W C] each, of one evaluation of the network.
function denoise(x, t, label, scale) {
  return new Promise((resolve, reject) => {
    const id = denoise.id = (denoise.id || 0) + 1;
    asked.set(id, {resolve, reject});
    worker.postMessage({id, x, shape: about.shape, t, label, scale});
  });
}

// The image f32[H W C] that x becomes; null if `isStale()` has said so between two steps.
async function sample(x, label, scale, isStale = () => false, show = () => {}) {
  for (const step of about.steps) {
    if (isStale()) return null;
    const {x0, eps} = await denoise(x, step.t, label, scale);
    const [clean, noisy] = [step.alpha_bar_next, 1 - step.alpha_bar_next].map(Math.sqrt);
    x = x0.map((value, i) => clean * value + noisy * eps[i]);
    show(x0);
  }
  return x;
}

// ---- requests: one at a time, and always the newest --------------------------------------------

const whole = (id, most) => Math.min(most, Math.max(0, Math.floor(Number($(id).value) || 0)));

function request() {
  const picked = document.querySelector('[name=class]:checked') || $('class');
  return {label: Number(picked?.value || 0), scale: Number($('scale').value),
          seed: whole('seed', 2 ** 32 - 1), num: Number($('num').value)};
}

async function ask() {
  wanted = request();
  if (running) return;
  running = true;
  while (wanted !== null) {
    const mine = wanted;
    wanted = null;
    try {
      await make(mine);
    } catch (error) {
      say(error.message, true);
    }
  }
  running = false;
}

async function make({label, scale, seed, num}) {
  const begin = performance.now(), since = () => performance.now() - begin;
  const isStale = () => wanted !== null && since() > PATIENCE;
  const count = about.shape.reduce((a, b) => a * b);
  const canvases = arrange(num);
  say(num > 1 ? `making ${num} images ...` : 'making ...');
  for (const [i, canvas] of canvases.entries()) {
    canvas.setAttribute('aria-label', describe(label, scale, seed, i));
    const x = await sample(noise(seed, i, count), label, scale, isStale,
                           x0 => since() > SLOW && paint(canvas, x0));
    if (x === null) return;
    paint(canvas, x);
  }
  const [ms, steps] = [since(), about.steps.length];
  $('took').textContent = (num > 1 ? `${num} images, ${(ms / num).toFixed(0)} ms each`
                                   : `${ms.toFixed(0)} ms`)
      + ` \u2013 ${steps} evaluation${steps > 1 ? 's' : ''}${num > 1 ? ' each' : ''}`;
  say('');
  document.body.dataset.ms = ms / num;
  document.body.dataset.done = ++done;
}

// ---- what is shown -----------------------------------------------------------------------------

function say(words, bad = false) {
  $('status').textContent = words || 'ready';
  $('status').classList.toggle('bad', bad);
}

const names = () => about.class_names
    || Array.from({length: about.num_classes || 0}, (_, i) => String(i));

function describe(label, scale, seed, i) {
  return [names()[label] || 'image', ...(takes('scale') ? [`scale ${scale.toFixed(1)}`] : []),
          `seed ${seed}`, ...(i ? [`number ${i + 1}`] : [])].join(', ');
}

function arrange(num) {  // as many canvases; those that are there keep their images until new ones
  const [height, width] = about.shape;
  while ($('shown').children.length > num) $('shown').lastChild.remove();
  while ($('shown').children.length < num) {
    const canvas = element('canvas', {width, height, role: 'img'});
    canvas.style.aspectRatio = `${width} / ${height}`;
    $('shown').append(canvas);
  }
  $('shown').style.setProperty('--columns', Math.ceil(Math.sqrt(num)));
  return [...$('shown').children];
}

function paint(canvas, x) {  // [-1, 1] -> 0..255, cut off, not rounded, as `adm sample` does
  const [height, width, channels] = about.shape;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      const shifted = Math.fround(x[channels * i + c % channels] + 1);  // all in f32, likewise
      image.data[4 * i + c] = Math.floor(Math.fround(shifted * 127.5));
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// ---- controls ----------------------------------------------------------------------------------

const takes = input => about.inputs.includes(input);

function fill() {
  document.title = $('name').textContent = about.model.name;
  $('made-by').textContent =
      `The network and ${about.runtime} run in this browser; nothing is sent.`;
  const options = names();
  $('classes').hidden = !takes('labels');
  if (options.length <= CHIPS) {
    $('classes').append(element('div', {class: 'chips'}, ...options.map((name, i) => element(
        'label', {}, element('input', {type: 'radio', name: 'class', value: i,
                                       ...(i ? {} : {checked: ''})}), name))));
  } else {
    $('classes').append(element('select', {id: 'class', 'aria-label': 'Class'}, ...options.map(
        (name, i) => element('option', {value: i}, name))));
  }
  $('scale').closest('label').hidden = !takes('scale');
  if (takes('scale')) {
    [$('scale').min, $('scale').max] = about.scales;
    $('scale').value = about.scale;
  }
}

function listen() {
  $('panel').addEventListener('submit', event => event.preventDefault());
  const changed = ({type, target}) => {
    // Numbers act while they move, the others once they have changed.
    if ((type === 'input') !== ['range', 'number'].includes(target.type)) return;
    $('scale-shown').textContent = Number($('scale').value).toFixed(1);
    ask();
  };
  for (const kind of ['input', 'change']) $('panel').addEventListener(kind, changed);
  $('dice').addEventListener('click', () => {
    $('seed').value = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
    ask();
  });
}

async function open() {
  const answer = await fetch('steps.json');
  if (!answer.ok) throw new Error(`steps.json: ${answer.status}`);
  about = await answer.json();
  fill();
  $('scale-shown').textContent = Number($('scale').value).toFixed(1);
  await new Promise((resolve, reject) => {
    worker = new Worker('worker.js', {type: 'module'});
    worker.onerror = () => reject(new Error('worker.js or the runtime cannot be loaded'));
    worker.onmessage = ({data: {id, ready, failed, ...made}}) => {
      if (ready) return resolve();
      if (id === undefined) return reject(new Error(failed));
      const waiting = asked.get(id);
      asked.delete(id);
      if (failed) waiting.reject(new Error(failed));
      else waiting.resolve(made);
    };
  });
  listen();
  ask();
}

if (location.protocol === 'file:') {  // from where browsers load no scripts of others
  say('Serve this folder: python -m http.server, and open http://localhost:8000', true);
} else {
  open().catch(error => say(error.message, true));
}
