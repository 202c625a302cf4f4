// The conformance guest: what each case of tests/conformance/values.toml is in JavaScript.
import { host } from "quadriga";
import { literals } from "./literals.js";

function literal(name) {
  const make = literals[name];
  if (make === undefined) throw new Error(`there is no case ${name}`);
  return make();
}

export function make(name) {
  return literal(name);
}

/** Whether a value is the literal, in value and in type. */
export function matches(name, value) {
  return same(literal(name), value);
}

export function echo(value) {
  return value;
}

export async function relay(extension, method, value) {
  return await host.call(extension, method, value);
}

/** Passes the literal of a case to another extension. */
export async function send(extension, method, name) {
  return await host.call(extension, method, literal(name));
}

function same(a, b) {
  if (typeof a !== "object" || a === null) return Object.is(a, b);
  if (typeof b !== "object" || b === null || Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (a instanceof Date) return a.getTime() === b.getTime() && a.nanosecond === b.nanosecond;
  if (a instanceof Uint8Array) return a.length === b.length && sameBytes(a, b);
  if (a instanceof Map) return same([...a], [...b]);
  if (Array.isArray(a)) return a.length === b.length && a.every((item, index) => same(item, b[index]));
  const names = Object.keys(a);
  return same(names, Object.keys(b)) && names.every((name) => same(a[name], b[name]));
}

function sameBytes(a, b) {
  // In words, which an engine without a compiler gets through four times as fast.
  const words = a.length >> 2;
  const [x, y] = [new Uint32Array(a.buffer, 0, words), new Uint32Array(b.buffer, 0, words)];
  for (let i = 0; i < words; i++) if (x[i] !== y[i]) return false;
  for (let i = words << 2; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
