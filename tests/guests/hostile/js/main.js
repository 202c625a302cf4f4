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

/**
 * @param {string} path
 * @returns {Promise<string>}
 */
export async function import_file(path) {
  try {
    return `done: ${Object.keys(await import(`file://${path}`))}`;
  } catch (error) {
    return `denied: ${error}`;
  }
}
