import { type Event, host, QuadrigaError } from "quadriga";

const all: [string, string | null, any][] = [];

export function tell(topic: string, data: any) {
  return host.emit(topic, data);
}

export function listen(topic: string) {
  return host.subscribe(topic, "hear", { overflow: "drop-oldest" });
}

export function unlisten(topic: string) {
  return host.unsubscribe(topic, "hear");
}

export function hear({ topic, source, data }: Event) {
  all.push([topic, source, data]);
}

// Fails as often as it is told to, and says which attempt it is then.
export function keep({ id, attempt, data }: Event) {
  if (attempt! <= data) throw new Error(`no ${attempt}`);
  all.push([id!, null, attempt]);
}

export function listen_kept(topic: string) {
  return host.subscribe(topic, "keep", { delivery: "at-least-once", "first-delay": "1ms", attempts: 4 });
}

export function heard() {
  return all;
}

export function get(key: string) {
  return host.kv.get(key);
}

export async function put(key: string, value: any) {
  await host.kv.put(key, value);
}

export function remove(key: string) {
  return host.kv.delete(key);
}

export function keys(prefix: string, after?: string) {
  return host.kv.list(prefix, after);
}

// Counts on from what is there, whatever others do meanwhile.
export async function count(key: string, times: number) {
  for (let done = 0; done < times; ) {
    const entry = await host.kv.entry<number>(key);
    const { value, version } = entry ?? { value: 0, version: 0 };
    if (await host.kv.put(key, value + 1, { version })) done++;
  }
}

// Has a value in another place, if there is one and nothing is there yet.
export async function relocate(key: string, to: [string, string]) {
  const entry = await host.kv.entry(key);
  if (entry === null) return false;
  const { value, version } = entry;
  return host.kv.batch([{ delete: key, version }, { put: to, value, version: 0 }]);
}

export function brief(key: string, value: any) {
  return host.kv.put(key, value, { ttl: 0.05 });
}

export async function page(namespace: string, most: number) {
  const entries = await host.kv.entries([namespace, ""], null, most);
  return entries.map(({ key, value }) => [key, value]);
}

export async function share(store: string, key: string, value: any) {
  await host.store(store).put(["shared", key], value);
}

export async function shared(store: string) {
  const entries = await host.store(store).entries(["shared", ""]);
  return entries.map(({ key, value }) => [key, value]);
}

export async function older(age: number, fields: string[] | null) {
  const page = await host.data.query("people", { fields, where: [["age", ">", age]], order: [["age", "desc"]] });
  return page.rows;
}

export function secret(name: string) {
  return host.secrets.get(name);
}

// What code that catches sees of a secret that it does not get.
export async function caught(name: string) {
  try {
    await host.secrets.get(name);
  } catch (error) {
    if (error instanceof QuadrigaError) return [error.code, error.message];
  }
  return [];
}

// Reads until that is denied, in one call.
export async function persist() {
  for (let i = 0; i < 10_000_000; i++) {
    try {
      await host.kv.get("k");
    } catch (error) {
      return (error as QuadrigaError).code;
    }
  }
  return "never";
}
