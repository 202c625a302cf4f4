// Attacks on the host, each bounded: so many bytes or seconds, then it stops.
//
// A method returns `done` with what it got, or `denied` with what it was told.

import * as quadriga from "quadriga";

const SECONDS = 20;

/** @param {() => string} attack */
function attempt(attack) {
  try {
    return `done: ${attack()}`;
  } catch (error) {
    return `denied: ${error}`;
  }
}

function untilLate(step = () => {}) {
  const until = Date.now() + SECONDS * 1000;
  while (Date.now() < until) step();
  return "the time was up";
}

/** @returns {string} */
export function ping() {
  return "pong";
}

// What takes too much

/** @returns {string} */
export function spin() {
  return untilLate();
}

/** @returns {string} */
export function spin_in_finally() {
  try {
    return untilLate();
  } finally {
    untilLate();
  }
}

/** @returns {string} */
export function spin_on_catch() {
  const until = Date.now() + SECONDS * 1000;
  while (Date.now() < until) {
    try {
      untilLate();
    } catch {
      // That is the attack.
    }
  }
  return "done: the time was up";
}

/** @returns {string} */
export function spin_in_regex() {
  // Backtracks through 2^n ways.
  return `done: ${/^(a+)+$/.test("a".repeat(30) + "b")}`;
}

/** @returns {Promise<string>} */
export async function spin_in_promises() {
  const until = Date.now() + SECONDS * 1000;
  while (Date.now() < until) await null;
  return "done: the time was up";
}

/** @returns {string} */
export function spin_in_getter() {
  const trap = {
    get then() {
      return untilLate();
    },
  };
  return `done: ${trap.then}`;
}

/** @returns {string} */
export function spin_in_sort() {
  [3, 1, 2].sort(() => (untilLate(), 0));
  return "done: sorted";
}

/** @returns {Promise<string>} */
export async function spin_in_timers() {
  const until = Date.now() + SECONDS * 1000;
  while (Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 0));
  return "done: the time was up";
}

/**
 * Waits where no script runs that could be interrupted.
 *
 * @returns {string}
 */
export function block_in_wait() {
  return attempt(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SECONDS * 1000));
}

/** @returns {Promise<string>} */
export function never_reply() {
  return new Promise(() => {});
}

/**
 * @param {number} mebibytes
 * @returns {string}
 */
export function grow_heap(mebibytes) {
  const held = [];
  return attempt(() => {
    for (let n = 0; n < Math.min(mebibytes, 2048); n++) {
      held.push(Array.from({ length: 1 << 16 }, (_, i) => ({ n, i })));
    }
    return `${held.length} blocks`;
  });
}

/**
 * @param {number} mebibytes
 * @returns {string}
 */
export function grow_text(mebibytes) {
  let text = "x".repeat(1 << 20);
  const held = [];
  return attempt(() => {
    for (let n = 0; n < Math.min(mebibytes, 2048); n++) held.push((text + n).split("").join("-"));
    return `${held.length} texts`;
  });
}

/**
 * @param {number} mebibytes
 * @returns {string}
 */
export function grow_buffers(mebibytes) {
  const held = [];
  return attempt(() => {
    for (let n = 0; n < Math.min(mebibytes, 2048); n++) held.push(new Uint8Array(1 << 20).fill(1));
    return `${held.length} MiB`;
  });
}

/**
 * Memory of a component of its own, which the heap knows nothing of.
 *
 * @param {number} mebibytes
 * @returns {string}
 */
export function grow_wasm(mebibytes) {
  return attempt(() => {
    const memory = new WebAssembly.Memory({ initial: 0, maximum: 1 << 16 });
    for (let n = 0; n < Math.min(mebibytes, 2048); n++) {
      const before = memory.grow(16);
      new Uint8Array(memory.buffer, before << 16).fill(1);
    }
    return `${memory.buffer.byteLength >> 20} MiB`;
  });
}

/**
 * @param {number} mebibytes
 * @returns {string}
 */
export function grow_resizable(mebibytes) {
  return attempt(() => {
    const most = Math.min(mebibytes, 2048) << 20;
    const buffer = new ArrayBuffer(0, { maxByteLength: most });
    for (let n = 1 << 20; n <= most; n += 1 << 20) {
      buffer.resize(n);
      new Uint8Array(buffer, n - (1 << 20)).fill(1);
    }
    return `${buffer.byteLength >> 20} MiB`;
  });
}

/** @returns {string} */
export function overflow_stack() {
  const deeper = (n) => deeper(n + 1) + 1;
  return attempt(() => `${deeper(0)}`);
}

/**
 * @param {number} mebibytes
 * @returns {string}
 */
export function flood_output(mebibytes) {
  const line = "x".repeat(1023);
  for (let n = 0; n < Math.min(mebibytes, 64) * 1024; n++) console.log(line);
  return `done: ${mebibytes} MiB`;
}

// Tampering with what is shared

/** @returns {string} */
export function pollute_prototypes() {
  return attempt(() => {
    Object.prototype.polluted = "yes";
    Array.prototype.map = () => ["polluted"];
    Function.prototype.call = () => "polluted";
    Promise.prototype.then = () => "polluted";
    globalThis.JSON = { parse: () => "polluted", stringify: () => "polluted" };
    return "polluted";
  });
}

/** @returns {string} */
export function replace_globals() {
  return attempt(() => {
    for (const name of ["Map", "Set", "Uint8Array", "TextDecoder", "Error", "Symbol", "Reflect"]) {
      Reflect.deleteProperty(globalThis, name);
    }
    return "gone";
  });
}

/** @returns {string} */
export function tamper_with_host() {
  return attempt(() => {
    quadriga.host.call = () => "mine";
    return "replaced";
  });
}

/** @returns {string} */
export function reach_engine() {
  const seen = ["Deno", "__bootstrap", "process", "require"].filter((name) => name in globalThis);
  return seen.length === 0 ? "denied: nothing there" : `done: ${seen}`;
}

/** @returns {string} */
export function reach_engine_by_constructor() {
  const top = quadriga.host.call.constructor("return this")();
  const seen = ["Deno", "__bootstrap", "process", "require"].filter((name) => name in top);
  return seen.length === 0 ? "denied: nothing there" : `done: ${seen}`;
}

/** @returns {string} */
export function start_worker() {
  return attempt(() => `${new Worker("data:text/javascript,for(;;);", { type: "module" })}`);
}

/**
 * Whoever looks at what is thrown loses time.
 *
 * @returns {string}
 */
export function throw_trap() {
  throw {
    get message() {
      return untilLate();
    },
    get stack() {
      return untilLate();
    },
    toString: () => untilLate(),
  };
}

/**
 * Whoever looks at what is returned loses time.
 *
 * @returns {unknown}
 */
export function return_trap() {
  return {
    get value() {
      return untilLate();
    },
  };
}

/** @returns {unknown} */
export function return_proxy() {
  return new Proxy({}, { ownKeys: () => (untilLate(), []), get: () => untilLate() });
}

/** @returns {unknown} */
export function return_cycle() {
  const cycle = {};
  cycle.cycle = cycle;
  return cycle;
}

/** @returns {unknown} */
export function return_thenable() {
  return { then() {} };
}

// What is none of its business

/**
 * @param {() => Promise<unknown>} attack
 * @returns {Promise<string>}
 */
async function attemptLater(attack) {
  try {
    return `done: ${await attack()}`;
  } catch (error) {
    return `denied: ${error} ${error?.cause ?? ""}`;
  }
}

/**
 * @param {string} path
 * @returns {Promise<string>}
 */
export function import_file(path) {
  return attemptLater(async () => Object.keys(await import(`file://${path}`)));
}

/**
 * @param {string} path
 * @returns {Promise<string>}
 */
export function import_by_dots(path) {
  return attemptLater(async () => Object.keys(await import("./" + "../".repeat(20) + path)));
}

/**
 * @param {number} port
 * @returns {Promise<string>}
 */
export function import_from_network(port) {
  return attemptLater(async () => Object.keys(await import(`http://127.0.0.1:${port}/main.js`)));
}

/**
 * @param {string} path
 * @returns {Promise<string>}
 */
export function fetch_file(path) {
  return attemptLater(async () => (await fetch(`file://${path}`)).text());
}

/**
 * @param {number} port
 * @returns {Promise<string>}
 */
export function connect(port) {
  return attemptLater(async () => (await fetch(`http://127.0.0.1:${port}/`)).status);
}

/**
 * @param {string} name
 * @returns {Promise<string>}
 */
export function resolve(name) {
  return attemptLater(async () => (await fetch(`http://${name}/`)).status);
}

/**
 * Calls an extension that it may not call, so often.
 *
 * @param {string} extension
 * @param {number} times
 * @returns {Promise<string>}
 */
export async function call_others(extension, times) {
  let refused = 0;
  for (let n = 0; n < Math.min(times, 5000); n++) {
    await quadriga.host.call(extension, "add", 2, 3).catch(() => refused++);
  }
  return refused === times ? `denied: ${refused} times` : `done: all but ${refused}`;
}

/**
 * Looks for steps finer than a millisecond, which is what is granted unless more is.
 *
 * @returns {string}
 */
export function fine_clock() {
  const steps = [Date.now, () => performance.now()].map((clock) => {
    const read = Array.from({ length: 20_000 }, clock);
    return Math.min(...read.slice(1).map((time, n) => time - read[n] || Infinity));
  });
  return `${steps.some((step) => step < 0.999) ? "done" : "denied"}: ${steps}`;
}
