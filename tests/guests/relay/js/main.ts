import { host } from "quadriga";
import { label } from "./lib/label.js";

export function echo(value: unknown) {
  return value;
}

export function add(a: number, b: number) {
  return a + b;
}

export function greet(name: string) {
  return `Hello, ${name}, from ${label}`;
}

export async function relay(extension: string, method: string, args: any[]) {
  return await host.call(extension, method, ...args);
}

export async function broadcast(tag: string | null, method: string, args: any[]) {
  const answers = await host.broadcast({ tag }, method, ...args);
  return answers.map(({ extension, value, error }) => [extension, value, error?.code]);
}

export async function chain(path: string[]): Promise<string[]> {
  if (path.length === 0) return [label];
  const [next, ...rest] = path;
  return [label, ...(await host.call<string[]>(next, "chain", rest))];
}

export function fail(message: string) {
  throw new Error(message);
}

export function crash() {
  throw "crashed on purpose";
}

export function spin() {
  for (;;);
}

export function unplaced() {
  return () => {};
}

export function log(message: string) {
  host.log.info(message);
}

export function setting(name: string) {
  return host.config()[name];
}
