/**
 * A value that can cross between extensions. Whole numbers beyond 2^53 - 1 are `bigint`; a map with
 * keys other than text is a `Map`. A point in time with more than whole milliseconds is a `Timestamp`.
 * `ArrayBuffer`, `DataView` and `Uint8ClampedArray` arrive as their bytes.
 */
export type Value =
  | null
  | undefined
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Uint8ClampedArray
  | DataView
  | ArrayBuffer
  | Date
  | readonly Value[]
  | { readonly [key: string]: Value }
  | ReadonlyMap<Value, Value>;

/**
 * What `host.call` sends as a stream, until the callee has heard enough: an async iterable, or an
 * iterator such as a generator. The callee gets an async iterable.
 */
export type Stream = AsyncIterable<Value> | IterableIterator<Value>;

/** What an extension may ask of its host. */
export interface Host {
  /**
   * Calls a method of another extension, which the manifest must ask for under
   * `[permissions] call`.
   *
   * @throws {QuadrigaError} The other extension's error, or why it could not be called.
   */
  call<R = any>(extension: string, method: string, ...args: (Value | Stream)[]): Promise<R>;
  /**
   * Calls a method of another extension and reads its result item by item, while it runs:
   * `for await (const row of host.stream("acme.files", "rows")) ...`. To stop reading gives the
   * call up. A method that does not stream gives its one result.
   */
  stream<T = any>(extension: string, method: string, ...args: Value[]): AsyncIterableIterator<T>;
  /**
   * Calls a method of each extension that `to` is for, all with the same arguments, but never this one.
   * Gives one answer for each that this extension may call, by id: those that it may not call are left
   * out. It needs the permission `call` for the method.
   */
  broadcast<R = any>(to: To, method: string, ...args: Value[]): Promise<Answer<R>[]>;
  /** Writes to the host's log. */
  readonly log: Log;
  /** What the extension keeps with its host, by key. It needs the permission `kv`. */
  readonly kv: KeyValue;
  /**
   * A store that several extensions share, by its name. To read there it needs the permission `stores` with
   * `"NAME:ro"`, to change something `"NAME:rw"`.
   */
  store(name: string): KeyValue;
  /** Data of the host, of which it sees the fields that the permission `data` names. */
  readonly data: Data;
  /** The host's secrets that the extension was granted, under the permission `secrets`. */
  readonly secrets: Secrets;
  /** Has the host run programs. Each needs the permission `subprocess`. */
  readonly process: Process;
  /**
   * Emits an event, for all who are subscribed to the topic. It is delivered later, to each at most
   * once, or at least once if that is what it asked for. It needs the permission `emit`.
   */
  emit(topic: string, data: Value): Promise<Emitted>;
  /**
   * Has events on a topic, or on all that begin with what stands before a final `*`, given to an
   * exported function of this extension, one after another. It needs the permission `subscribe`.
   * What the manifest says under `[events]` needs no call.
   */
  subscribe(topic: string, method: string, options?: Subscribe): Promise<null>;
  /** Ends what `subscribe` began, and says whether there was anything to end. */
  unsubscribe(topic: string, method: string): Promise<boolean>;
  /**
   * Has the host's work go on, in a handler of a hook with `mode = "around"`, and gives what comes of
   * it. `patch` changes the context before, as a JSON Merge Patch (RFC 7396). Only once in each call.
   *
   * @throws {QuadrigaError} what the work fails with; `invalid_arguments` if there is none to go on with.
   */
  proceed<T = any>(patch?: Value): Promise<T>;
  /** The extension's settings: the manifest's defaults with the host's changes. */
  config<C = Record<string, any>>(): C;
  /**
   * The signal of the call that runs. It aborts when the caller no longer waits: for `fetch`, for
   * listeners that clean up, for whatever takes an `AbortSignal`. Nothing that waits for the host
   * goes on after that.
   */
  readonly signal: AbortSignal;
  /** Whether the caller no longer waits: long work should look now and then, and stop. */
  cancelled(): boolean;
}

/** For whom a broadcast is: the extensions for which all that is said here holds. */
export interface To {
  /** What runs them: `"javascript"`, `"python"`, `"webassembly"`, `"native"`. */
  runtime?: string | null;
  /** One of the `tags` in their manifests. */
  tag?: string | null;
  /** A capability that they provide, such as `"cache"` or `"cache@^1.2"`. */
  provides?: string | null;
  /** Seconds that all of it may take; 30 if left out. */
  timeout?: number | null;
  /** Seconds that each extension may take. */
  each?: number | null;
  /** How many are called at the same time, up to 64; 16 if left out. */
  parallel?: number | null;
}

/** What one extension answered to a broadcast: a value, or why there is none. */
export type Answer<R = any> =
  | { readonly extension: string; readonly value: R; readonly error?: undefined }
  | { readonly extension: string; readonly error: AnswerError; readonly value?: undefined };

/** Why an extension has no answer. */
export interface AnswerError {
  /** A stable name such as `"unknown_method"`. */
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
}

/** What a function that is subscribed to a topic gets. */
export interface Event<T = any> {
  readonly topic: string;
  /** The id of the extension that emitted it; `null` for the host. */
  readonly source: string | null;
  readonly data: T;
  /** Names it, if it is delivered at least once: it may come more than once, and has the same each time. */
  readonly id?: string;
  /** Which attempt this is, from 1 on, if it is delivered at least once. */
  readonly attempt?: number;
}

/** What a subscription wants: see `[events]` of the manifest. */
export interface Subscribe {
  overflow?: Overflow;
  delivery?: "at-most-once" | "at-least-once";
  /** With at-least-once: how often the function is called for one event; 5 if left out. */
  attempts?: number;
  /** How long after the first failure the next attempt comes, such as `"1s"`; twice as long after each more. */
  "first-delay"?: string;
  /** The longest time between two attempts, such as `"1min"`. */
  "longest-delay"?: string;
}

/** What became of an event: the queues that it stands in, and the events that were dropped for it. */
export interface Emitted {
  readonly queued: number;
  readonly dropped: number;
}

/** Which events are dropped where a queue is full. */
export type Overflow = "drop-newest" | "drop-oldest";

/** A key of 1 to 512 bytes, or a namespace and a key within it. The same keys in others are others. */
export type Key = string | readonly [namespace: string, key: string];

/** A key-value store. Of `kv`, each extension sees its own keys. */
export interface KeyValue {
  /** The value of a key, or `null`. */
  get<V = any>(key: Key): Promise<V | null>;
  /** The value of a key with what is known of it, or `null`. */
  entry<V = any>(key: Key): Promise<Entry<V> | null>;
  /**
   * Puts a value in the place of the one before. With options, says whether the version was as it should be;
   * otherwise nothing is put.
   *
   * @throws {QuadrigaError} `quota_exceeded` if there is no room for it.
   */
  put(key: Key, value: Value): Promise<null>;
  put(key: Key, value: Value, options: PutOptions): Promise<boolean>;
  /** Takes a key away, if its version is as it should be, and says whether it did. */
  delete(key: Key, options?: { version?: number }): Promise<boolean>;
  /** The keys that begin with `prefix`, in order: the first 1000, or the first 1000 after `after`. */
  list(prefix?: Key, after?: string): Promise<string[]>;
  /**
   * The same with their values: the first `most` of them, or fewer if they are large. There are no more when
   * none come back.
   */
  entries<V = any>(
    prefix?: Key,
    after?: string | null,
    most?: number,
  ): Promise<(Entry<V> & { readonly key: string })[]>;
  /**
   * Makes all changes, in their order, or none if a version is not as it should be; says whether it did.
   *
   * @throws {QuadrigaError} `quota_exceeded` if there is no room for what there would be in the end.
   */
  batch(changes: readonly Change[]): Promise<boolean>;
}

/** A value that is kept. */
export interface Entry<V = any> {
  readonly value: V;
  /** Each put gives a value a higher version than any before it. */
  readonly version: number;
  /** The seconds that it has left, or `null` if it stays. */
  readonly ttl: number | null;
}

/** How a value is put. */
export interface PutOptions {
  /** Seconds after which it is gone. */
  ttl?: number | null;
  /** Only if the value that is there has this version; 0 if there must be none. */
  version?: number | null;
}

/** One change of a batch. `check` changes nothing. */
export type Change =
  | ({ put: Key; value: Value } & PutOptions)
  | { delete: Key; version?: number | null }
  | { check: Key; version: number };

/** The host's data. */
export interface Data {
  /**
   * The rows of a source that all conditions hold for: a page of them.
   *
   * @throws {QuadrigaError} `permission_denied` if a field is named that was not granted, `message_too_large` if
   * the page is.
   */
  query<R = Record<string, any>>(source: string, query?: Query): Promise<Page<R>>;
}

/** Which rows, and what of them. */
export interface Query {
  /** All that were granted, if left out. */
  fields?: readonly string[] | null;
  where?: readonly (readonly [field: string, is: "=" | "<" | "<=" | ">" | ">=", value: Value])[] | null;
  order?: readonly (readonly [field: string, way: "asc" | "desc"])[] | null;
  /** 100 if left out, and 1000 at most. */
  limit?: number | null;
  /** The `next` of the page before. */
  cursor?: string | null;
}

/** Some rows. */
export interface Page<R = Record<string, any>> {
  readonly rows: R[];
  /** Where the next page begins; `null` if there is none. */
  readonly next: string | null;
}

/** The host's secrets. */
export interface Secrets {
  /**
   * The text of a secret.
   *
   * @throws {QuadrigaError} `unknown_secret` if the host does not have it.
   */
  get(name: string): Promise<string>;
}

/** Programs that the host runs, each confined as the extension is, or further. They have no network. */
export interface Process {
  /**
   * Runs a program to its end: a plain name, or an absolute path.
   *
   * @throws {QuadrigaError} `permission_denied` unless it was granted, also when that is taken back
   * while it runs; `deadline_exceeded` at the timeout; `message_too_large` if it prints too much.
   */
  run(program: string, args?: readonly string[] | null, options?: RunOptions | null): Promise<Ended>;
}

/** How a program is run. */
export interface RunOptions {
  /** What it reads from its standard input. */
  stdin?: string | Uint8Array | null;
  /** Variables beside those that were granted. */
  env?: { readonly [name: string]: string } | null;
  /** Seconds after which it is ended. */
  timeout?: number | null;
  /** Where it starts: an absolute path, or one from the package on. A folder of its own if left out. */
  folder?: string | null;
}

/** How a program ended, and what it printed. */
export interface Ended {
  /** Its exit status, or `null` if a signal ended it. */
  status: number | null;
  /** The number of the signal that ended it, or `null`. */
  signal: number | null;
  stdout: Uint8Array;
  stderr: Uint8Array;
}

/** The host's log. Values other than text are rendered for people. */
export interface Log {
  trace(...values: unknown[]): void;
  debug(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
}

export const host: Host;

/** A point in time finer than the milliseconds of a `Date`. */
export class Timestamp extends Date {
  /** `nanosecond` counts those after the millisecond, up to 999999. */
  constructor(time: number | string | Date, nanosecond?: number);
  /** The nanoseconds after the millisecond. */
  get nanosecond(): number;
}

/** An error that came from `host.call`. Its `stack` is of the call, its `cause` as it came. */
export class QuadrigaError extends Error {
  private constructor();
  /** A stable name such as `"permission_denied"`. */
  readonly code: string;
  /** What to do about it. */
  readonly hint?: string;
  /** The extension in which it happened. */
  readonly extension?: string;
  /** The error as it came, with the stack of the other extension's own language. */
  readonly cause?: unknown;
}
