// A client of typed.python 1.2.0. `quadriga bindgen` wrote it: do not edit.
// The manifest must ask for the calls: [permissions] call = ["typed.python/*"]
import { host } from "quadriga";

const EXTENSION = "typed.python";

/** Someone. */
export interface Person {
  name: string;
  tags: string[];
  friends: Person[];
  age?: number | bigint | null;
}

/** Someone. */
export interface PersonResult {
  name: string;
  tags: string[];
  friends: PersonResult[];
  age: number | bigint | null;
}

export interface Measured {
  size: number | bigint;
  at: Date;
  counts: Record<string, number | bigint>;
}

/** Greets someone, perhaps more than once. */
export function greet(person: Person, times?: number | bigint): Promise<string> {
  return host.call(EXTENSION, "greet", ...given(person, times));
}

/** Returns someone who is older, and the friends with them. */
export function older(person: Person, years: number | bigint): Promise<PersonResult> {
  return host.call(EXTENSION, "older", ...given(person, years));
}

/** Tells the size of data, and when it came. */
export function measure(data: Uint8Array, at: Date): Promise<Measured> {
  return host.call(EXTENSION, "measure", ...given(data, at));
}

/** Returns something else than it says. */
export function lie(): Promise<number | bigint> {
  return host.call(EXTENSION, "lie");
}

/** The arguments that a call passes: those at the end that were left out are not among them. */
function given(...args: any[]): any[] {
  while (args.length > 0 && args[args.length - 1] === undefined) args.pop();
  return args;
}
