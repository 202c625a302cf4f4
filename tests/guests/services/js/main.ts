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
