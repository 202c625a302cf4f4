import type { Person } from "./people.ts";

/** Greets someone, perhaps more than once. */
export function greet(person: Person, times?: bigint): string {
  return Array(Number(times ?? 1)).fill(`Hello, ${person.name}`).join("; ");
}

/** Returns someone who is older, and the friends with them. */
export async function older(person: Person, years: bigint): Promise<Person> {
  const friends = await Promise.all(person.friends.map((friend) => older(friend, years)));
  return { ...person, age: BigInt(person.age ?? 0) + BigInt(years), friends };
}

/** Tells the size of data, and when it came. */
export function measure(data: Uint8Array, at: Date): { size: bigint; at: Date; counts: Record<string, bigint> } {
  const counts: Record<string, bigint> = {};
  for (const byte of data) counts[byte] = BigInt(counts[byte] ?? 0) + 1n;
  return { size: BigInt(data.length), at, counts };
}

/** Returns something else than it says. */
export function lie(): bigint {
  return "no number" as any;
}
