// The network of denoiser.onnx by onnxruntime-web, off the page's own thread: one evaluation for
// each message.
import * as ort from './runtime/ort.wasm.min.js';

const place = name => new URL(`runtime/ort-wasm-simd-threaded.${name}`, import.meta.url).href;
ort.env.wasm.numThreads = 1;  // more need headers that a server of files does not send
ort.env.wasm.wasmPaths = {mjs: place('js'), wasm: place('wasm')};

const session = fetch('denoiser.onnx').then(async answer => {
  if (!answer.ok) throw new Error(`denoiser.onnx: ${answer.status}`);
  return ort.InferenceSession.create(await answer.arrayBuffer(), {executionProviders: ['wasm']});
});
session.then(() => postMessage({ready: true}), error => postMessage({failed: error.message}));

onmessage = async ({data: {id, x, shape, t, label, scale}}) => {
  const given = {
    x: new ort.Tensor('float32', x, [1, ...shape]),
    t: new ort.Tensor('int32', Int32Array.of(t), []),
    labels: new ort.Tensor('int32', Int32Array.of(label), [1]),
    scale: new ort.Tensor('float32', Float32Array.of(scale), []),
  };
  try {
    const network = await session;
    const feeds = Object.fromEntries(network.inputNames.map(name => [name, given[name]]));
    const {x0, eps} = await network.run(feeds);
    postMessage({id, x0: x0.data, eps: eps.data});
  } catch (error) {
    postMessage({id, failed: error.message});
  }
};
