import { host } from "quadriga";

export function* count(n: number | bigint) {
  for (let i = 0; i < n; i++) yield i;
}

export async function* blocks(n: number, size: number) {
  for (let i = 0; i < n; i++) yield new Uint8Array(size).fill(7);
}

export async function* broken(n: number) {
  yield* count(n);
  throw new Error("the source ran dry");
}

export async function sum(numbers: AsyncIterable<number>) {
  let sum = 0;
  for await (const number of numbers) sum += number;
  return sum;
}

export async function sum_first(numbers: AsyncIterable<number>, n: number) {
  let sum = 0;
  for await (const number of numbers) {
    if (n-- === 0) break;
    sum += number;
  }
  return sum;
}

export async function* double(numbers: AsyncIterable<number>) {
  for await (const number of numbers) yield 2 * number;
}

export async function total(extension: string, n: number) {
  return await sum(host.stream<number>(extension, "count", n));
}

export async function first(extension: string, n: number) {
  const items: number[] = [];
  for await (const item of host.stream<number>(extension, "count", 2n ** 64n - 1n)) {
    if (items.length === n) break;
    items.push(item);
  }
  return items;
}

export async function send(extension: string, n: number) {
  return await host.call(extension, "sum", count(n));
}

export async function send_endless(extension: string, n: number) {
  return await host.call(extension, "sum_first", count(Infinity), n);
}

export async function read_broken(extension: string, n: number) {
  return await sum(host.stream<number>(extension, "broken", n));
}

export async function pause() {
  await new Promise<void>((resolve) => {
    host.signal.addEventListener("abort", () => {
      host.log.info("cleaned up");
      resolve();
    });
    host.log.info("waiting");
  });
}

export async function whole(extension: string, n: number) {
  return await host.call(extension, "count", n);
}
