// Runs once in each isolate, before any code of the extension: takes what it needs of the engine's
// internals into a closure, hides them, and puts web platform pieces in place.
"use strict";
((globalThis) => {
  const { core } = globalThis.Deno;
  const { primordials } = globalThis.__bootstrap;
  const {
    op_qx_call,
    op_qx_cancelled,
    op_qx_config,
    op_qx_decode,
    op_qx_install,
    op_qx_log,
    op_qx_set_signal,
    op_qx_settle,
    op_qx_signal,
    op_qx_unhandled,
  } = core.ops;
  const { cancelTimer, createTimer, encode, getAsyncContext, isNativeError, setAsyncContext } = core;
  const { ErrorCaptureStackTrace, JSONStringify, ObjectFreeze, PromisePrototypeThen, StringPrototypeIsWellFormed, Symbol, SymbolFor } =
    primordials;
  const {
    __quadriga_clock: makeClock,
    __quadriga_events: makeEvents,
    __quadriga_fetch: makeFetch,
    __quadriga_streams: makeStreams,
  } = globalThis;
  makeClock(core.ops);

  const { Array, ArrayBuffer, Date, Error, Math, Object, RangeError, Reflect, String, TypeError, Uint8Array } = globalThis;

  delete globalThis.Deno;
  // QuickJS has no locales, and a stand-in that is wrong in most of them. Without it scripts can see that.
  if (globalThis.__v8xTemporalTimeZone !== undefined) delete globalThis.Intl;
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (name.startsWith("__")) delete globalThis[name];
  }
  // Its memories would escape the memory limit. A module of WebAssembly is an extension by itself.
  delete globalThis.WebAssembly;

  // ---- Errors -----------------------------------------------------------------------------------

  const secret = Symbol("quadriga");
  const CAUSES = 16;

  class QuadrigaError extends Error {
    #code;
    #hint;
    #extension;
    #remote;

    constructor(key, [code, message, hint, stack, extension, cause], remote = false) {
      if (key !== secret) {
        throw new TypeError("a QuadrigaError comes from host.call; throw an Error of your own");
      }
      super(message);
      this.#code = code;
      this.#hint = hint;
      this.#extension = extension;
      this.#remote = remote;
      if (cause !== undefined) {
        define(this, "cause", typeof cause === "object" && !isNativeError(cause) ? received(cause) : cause);
      }
      if (stack !== undefined) define(this, "stack", stack);
    }

    get name() {
      return "QuadrigaError";
    }
    get code() {
      return this.#code;
    }
    get hint() {
      return this.#hint;
    }
    get extension() {
      return this.#extension;
    }

    static knows(value) {
      return #code in value;
    }
    // Where its stack is from, if not from here.
    static origin(value) {
      return value.#remote ? value.#extension : undefined;
    }
  }

  function define(object, name, value) {
    Object.defineProperty(object, name, { __proto__: null, value, configurable: true, writable: true });
  }

  // The error as it came, with the stack of where it happened.
  function received(parts) {
    return new QuadrigaError(secret, parts, true);
  }

  function textOr(value, otherwise) {
    return typeof value === "string" ? value : otherwise;
  }

  // An exception as [code, message, hint, stack, extension, cause], which Rust reads.
  function explain(thrown, depth = CAUSES) {
    try {
      if (typeof thrown !== "object" || thrown === null || !(isNativeError(thrown) || thrown instanceof Error)) {
        return [undefined, typeof thrown === "string" ? thrown : inspect(thrown)];
      }
      const ours = QuadrigaError.knows(thrown);
      // Not caught, what the host said is what the caller gets to know.
      const known = ours ? thrown : told(thrown);
      const cause = depth > 0 ? thrown.cause : undefined;
      return [
        known?.code,
        textOr(thrown.message, "") || textOr(thrown.name, "Error"),
        known?.hint,
        textOr(thrown.stack, undefined),
        ours ? QuadrigaError.origin(thrown) : undefined,
        cause === undefined || cause === null ? undefined : explain(cause, depth - 1),
      ];
    } catch {
      return [undefined, "the extension threw something unreadable"];
    }
  }

  function watch(promise, call) {
    PromisePrototypeThen(
      promise,
      (value) => op_qx_settle(call, true, value),
      (thrown) => op_qx_settle(call, false, thrown),
    );
  }

  function unhandled(_promise, reason) {
    op_qx_unhandled(reason);
    return true;
  }

  // What a host function answered, as an exception thrown by `from`.
  function failed(parts, from) {
    const cause = received(parts);
    const error = new QuadrigaError(secret, [cause.code, cause.message, cause.hint, , cause.extension, cause]);
    ErrorCaptureStackTrace(error, from);
    return error;
  }

  const { drain, feed, input, isStream, stream } = makeStreams({ ops: core.ops, failed });
  const { told, web } = makeFetch({ ops: core.ops, failed, encode, decode: (bytes) => withoutMark(op_qx_decode(bytes, false)) });
  op_qx_install(
    explain,
    watch,
    (text) => StringPrototypeIsWellFormed(text),
    (time, nanosecond) => new Timestamp(time, nanosecond),
    (date) => Timestamp.nanosecond(date),
    drain,
    input,
  );
  core.setUnhandledPromiseRejectionHandler(unhandled);
  core.setReportExceptionCallback(op_qx_unhandled);

  // ---- The host ---------------------------------------------------------------------------------

  async function call(extension, method, ...args) {
    if (typeof extension !== "string" || typeof method !== "string") {
      throw new TypeError("host.call takes the id of an extension, the name of a method, and arguments");
    }
    let sent = -1;
    for (let i = 0; i < args.length; i++) {
      if (!isStream(args[i])) continue;
      if (sent >= 0) throw new TypeError("a call takes one stream at most");
      sent = i;
    }
    try {
      return await (sent < 0 ? op_qx_call(extension, method, args) : feed(extension, method, args, sent));
    } catch (parts) {
      throw sent < 0 || Array.isArray(parts) ? failed(parts, call) : parts;
    }
  }

  // The functions of a service of the host, with what stands before their other arguments.
  function service(name, methods, ...first) {
    const functions = { __proto__: null };
    for (const method of methods) {
      functions[method] = (...args) => call(`quadriga.${name}`, method, ...first, ...args);
    }
    return ObjectFreeze(functions);
  }
  const ofStores = ["get", "entry", "put", "delete", "list", "entries", "batch"];

  function logger(level) {
    return (...values) => op_qx_log(level, line(values));
  }

  // The signal of the call that runs, which aborts when its caller no longer waits.
  function signal() {
    const known = op_qx_signal();
    if (known !== undefined) return known;
    const controller = new AbortController();
    op_qx_set_signal(controller.signal, (parts) => controller.abort(received(parts)));
    return controller.signal;
  }

  const host = ObjectFreeze({
    __proto__: null,
    call,
    stream,
    get signal() {
      return signal();
    },
    log: ObjectFreeze({
      __proto__: null,
      trace: logger(0),
      debug: logger(1),
      info: logger(2),
      warn: logger(3),
      error: logger(4),
    }),
    broadcast: (to, method, ...args) => call("quadriga.calls", "broadcast", to, method, args),
    ...service("events", ["emit", "subscribe", "unsubscribe"]),
    ...service("hooks", ["proceed"]),
    kv: service("kv", ofStores),
    store: (name) => service("store", ofStores, name),
    data: service("data", ["query"]),
    secrets: service("secrets", ["get"]),
    process: service("process", ["run"]),
    config: () => op_qx_config(),
    cancelled: () => op_qx_cancelled(),
  });

  // A point in time finer than the milliseconds of a Date.
  class Timestamp extends Date {
    #nanosecond;

    constructor(time, nanosecond = 0) {
      super(time);
      if (nanosecond !== Math.trunc(nanosecond) || nanosecond < 0 || nanosecond > 999_999) {
        throw new RangeError("the nanoseconds after the millisecond are a whole number up to 999999");
      }
      this.#nanosecond = nanosecond;
    }

    get nanosecond() {
      return this.#nanosecond;
    }

    toISOString() {
      return super.toISOString().replace("Z", String(this.#nanosecond).padStart(6, "0") + "Z");
    }

    static nanosecond(date) {
      return #nanosecond in date ? date.#nanosecond : 0;
    }
  }

  // What the module "quadriga" exports. Found by a registered symbol, so that a bundled copy of the
  // SDK works as well as the built-in one.
  Object.defineProperty(globalThis, SymbolFor("quadriga.host"), {
    __proto__: null,
    value: ObjectFreeze({ __proto__: null, host, QuadrigaError, Timestamp }),
  });

  // ---- Text for people --------------------------------------------------------------------------

  function line(values) {
    let text = "";
    for (let i = 0; i < values.length; i++) {
      text += (i === 0 ? "" : " ") + (typeof values[i] === "string" ? values[i] : inspect(values[i]));
    }
    return text;
  }

  function inspect(value, depth = 0) {
    switch (typeof value) {
      case "string":
        return JSONStringify(value);
      case "bigint":
        return `${value}n`;
      case "function":
        return `[function ${value.name || "(anonymous)"}]`;
      case "object":
        break;
      default:
        return String(value);
    }
    try {
      return value === null ? "null" : inspectObject(value, depth);
    } catch {
      return "[unreadable]";
    }
  }

  function inspectObject(value, depth) {
    if (isNativeError(value)) return textOr(value.stack, String(value));
    if (core.isDate(value)) return String(value);
    if (core.isRegExp(value)) return String(value);
    const name = value.constructor?.name ?? "Object";
    if (depth > 3) return `[${name}]`;
    const items = [];
    const more = depth + 1;
    if (Array.isArray(value) || core.isTypedArray(value)) {
      const shown = Math.min(value.length, 100);
      for (let i = 0; i < shown; i++) items[i] = inspect(value[i], more);
      if (shown < value.length) items[shown] = "...";
      return `${Array.isArray(value) ? "" : name + " "}[${items.join(", ")}]`;
    }
    if (core.isMap(value)) {
      for (const [key, item] of value) items.push(`${inspect(key, more)} => ${inspect(item, more)}`);
    } else if (core.isSet(value)) {
      for (const item of value) items.push(inspect(item, more));
    } else {
      for (const key of Object.keys(value)) items.push(`${key}: ${inspect(value[key], more)}`);
    }
    return `${name === "Object" ? "" : name + " "}{${items.join(", ")}}`;
  }

  // ---- Memory -----------------------------------------------------------------------------------

  // The engine maps resizable buffers past the allocator that counts them.
  function fixedOnly(Original) {
    const name = Original.name;
    function Buffer(length, options) {
      if (options?.maxByteLength !== undefined) throw new RangeError(`a resizable ${name} is not supported`);
      if (new.target === undefined) throw new TypeError(`${name} needs new`);
      return Reflect.construct(Original, [length], new.target);
    }
    const properties = Object.getOwnPropertyDescriptors(Original);
    delete properties.prototype;
    Object.defineProperties(Buffer, properties);
    Object.defineProperty(Buffer, "prototype", { __proto__: null, value: Original.prototype, writable: false });
    define(Original.prototype, "constructor", Buffer);
    define(globalThis, name, Buffer);
  }
  fixedOnly(globalThis.ArrayBuffer);
  fixedOnly(globalThis.SharedArrayBuffer);

  // ---- The web platform -------------------------------------------------------------------------

  function expose(name, value) {
    define(globalThis, name, value);
  }

  expose("console", {
    trace: logger(0),
    debug: logger(1),
    log: logger(2),
    info: logger(2),
    warn: logger(3),
    error: logger(4),
    dir: logger(2),
    table: logger(2),
    group: logger(2),
    groupEnd() {},
    assert(condition, ...values) {
      if (!condition) op_qx_log(4, `assertion failed: ${line(values)}`);
    },
  });

  const timers = { __proto__: null };
  let timerIds = 0;

  function setTimer(callback, delay, args, repeat) {
    if (typeof callback !== "function") throw new TypeError("a timer needs a function");
    const id = ++timerIds;
    const context = getAsyncContext();
    const run = () => {
      if (!repeat) delete timers[id];
      const before = getAsyncContext();
      setAsyncContext(context);
      try {
        callback(...args);
      } finally {
        setAsyncContext(before);
      }
    };
    timers[id] = createTimer(run, delay, undefined, repeat, true, false);
    return id;
  }

  function clearTimer(id) {
    const timer = timers[id];
    if (timer === undefined) return;
    delete timers[id];
    cancelTimer(timer);
  }

  const events = makeEvents({
    report: op_qx_unhandled,
    setTimeout: (callback, delay) => setTimer(callback, delay, [], false),
  });
  const { AbortController } = events;
  for (const name in events) expose(name, events[name]);

  expose("setTimeout", (callback, delay, ...args) => setTimer(callback, delay, args, false));
  expose("setInterval", (callback, delay, ...args) => setTimer(callback, delay, args, true));
  expose("clearTimeout", clearTimer);
  expose("clearInterval", clearTimer);

  expose("structuredClone", (value, options) => {
    if (options?.transfer?.length > 0) throw new TypeError("structuredClone cannot transfer here");
    return core.structuredClone(value);
  });

  class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(text = "") {
      return encode(String(text).toWellFormed());
    }
    encodeInto(text, into) {
      let read = 0;
      let written = 0;
      for (const char of String(text).toWellFormed()) {
        const bytes = encode(char);
        if (written + bytes.length > into.length) break;
        into.set(bytes, written);
        read += char.length;
        written += bytes.length;
      }
      return { read, written };
    }
  }

  class TextDecoder {
    #fatal;
    #ignoreBOM;
    #rest = new Uint8Array(0);
    #started = false;

    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      const name = String(label).trim().toLowerCase();
      if (name !== "utf-8" && name !== "utf8" && name !== "unicode-1-1-utf-8") {
        throw new RangeError(`the encoding ${label} is not supported, only utf-8`);
      }
      this.#fatal = !!fatal;
      this.#ignoreBOM = !!ignoreBOM;
    }
    get encoding() {
      return "utf-8";
    }
    get fatal() {
      return this.#fatal;
    }
    get ignoreBOM() {
      return this.#ignoreBOM;
    }
    decode(input, { stream = false } = {}) {
      let bytes = joined(this.#rest, view(input));
      const keep = stream ? unfinished(bytes) : 0;
      this.#rest = bytes.slice(bytes.length - keep);
      bytes = bytes.subarray(0, bytes.length - keep);
      let text = op_qx_decode(bytes, this.#fatal);
      if (!this.#started && !this.#ignoreBOM && text[0] === "\ufeff") text = text.slice(1);
      this.#started = stream && (this.#started || bytes.length > 0);
      return text;
    }
  }

  function view(input) {
    if (input === undefined) return new Uint8Array(0);
    if (ArrayBuffer.isView(input)) return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    return new Uint8Array(input);
  }

  function joined(a, b) {
    if (a.length === 0) return b;
    const both = new Uint8Array(a.length + b.length);
    both.set(a, 0);
    both.set(b, a.length);
    return both;
  }

  // How many bytes at the end begin a character that more bytes could complete.
  function unfinished(bytes) {
    for (let n = 1; n <= 3 && n <= bytes.length; n++) {
      const byte = bytes[bytes.length - n];
      if (byte < 0x80) return 0;
      if (byte >= 0xc0) return n < (byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4) ? n : 0;
    }
    return 0;
  }

  function withoutMark(text) {
    return text[0] === "\ufeff" ? text.slice(1) : text;
  }

  for (const name in web) expose(name, web[name]);
  expose("TextEncoder", TextEncoder);
  expose("TextDecoder", TextDecoder);
})(globalThis);
