import { greet, lie, measure, older } from "./typed.ts";
import type { Person } from "./typed.ts";

/** Calls every method of the typed guest, and tells what came of it. */
export async function visit(name: string): Promise<any[]> {
  const friend: Person = { name: "Bob", tags: ["friend"], friends: [], age: null };
  const aged = await older({ name, tags: [], friends: [friend], age: 36 }, 1);
  const measured = await measure(new Uint8Array([7, 7]), new Date(1000));
  const refused = await lie().catch((error: any) => error.code);
  return [
    await greet(friend),
    await greet(aged, 2),
    aged.age,
    aged.friends[0].age,
    measured.size,
    measured.counts["7"],
    measured.at.getTime(),
    refused,
  ];
}
