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
  /** Writes to the host's log. */
  readonly log: Log;
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
