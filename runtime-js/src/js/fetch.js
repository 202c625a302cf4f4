// fetch of the web platform: https://fetch.spec.whatwg.org, as far as one extension talks to servers.
// Runs before bootstrap.js, which takes the function away and calls it with what it needs.
"use strict";
// In parentheses, so that the engine compiles it at once, and keeps that for the next isolate.
globalThis.__quadriga_fetch = (({ ops, failed, encode, decode }) => {
  const { op_qx_fetch, op_qx_fetch_close, op_qx_fetch_read } = ops;
  const { Array, ArrayBuffer, Error, FinalizationRegistry, JSON, Map, Number, Object, Promise, RangeError, String } =
    globalThis;
  const { Symbol, TypeError, Uint8Array, WeakMap } = globalThis;
  const secret = Symbol("quadriga");

  // What the host says of an error, by the TypeError that the extension got.
  const told = new WeakMap();

  // As the platform has it: a TypeError, with what the host says as its cause.
  function network(parts, from) {
    const cause = failed(parts, from);
    const error = new TypeError(`fetch failed: ${cause.message}`);
    Object.defineProperty(error, "cause", { __proto__: null, value: cause, configurable: true, writable: true });
    told.set(error, cause);
    Error.captureStackTrace?.(error, from);
    return error;
  }

  // ---- Headers ----------------------------------------------------------------------------------

  const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
  const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

  class Headers {
    // Lists of values, by name in small letters.
    #lists = new Map();
    constructor(init) {
      if (init === undefined || init === null) return;
      if (typeof init !== "object") throw new TypeError("headers are an object or pairs");
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...more] = pair;
        if (value === undefined || more.length > 0) throw new TypeError("a header is a name and a value");
        this.append(name, value);
      }
    }
    append(name, value) {
      const [key, text] = [nameOf(name), valueOf(value)];
      const list = this.#lists.get(key);
      if (list === undefined) this.#lists.set(key, [text]);
      else list.push(text);
    }
    set(name, value) {
      this.#lists.set(nameOf(name), [valueOf(value)]);
    }
    get(name) {
      return this.#lists.get(nameOf(name))?.join(", ") ?? null;
    }
    getSetCookie() {
      return [...(this.#lists.get("set-cookie") ?? [])];
    }
    has(name) {
      return this.#lists.has(nameOf(name));
    }
    delete(name) {
      this.#lists.delete(nameOf(name));
    }
    forEach(callback, receiver) {
      for (const [name, value] of this) callback.call(receiver, value, name, this);
    }
    *entries() {
      for (const name of [...this.#lists.keys()].sort()) {
        if (name === "set-cookie") for (const value of this.getSetCookie()) yield [name, value];
        else yield [name, this.get(name)];
      }
    }
    *keys() {
      for (const [name] of this.entries()) yield name;
    }
    *values() {
      for (const [, value] of this.entries()) yield value;
    }
    [Symbol.iterator]() {
      return this.entries();
    }
    get [Symbol.toStringTag]() {
      return "Headers";
    }
  }

  function nameOf(name) {
    const text = String(name);
    if (!NAME.test(text)) throw new TypeError(`${JSON.stringify(text)} is no name of a header`);
    return text.toLowerCase();
  }

  function valueOf(value) {
    const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
    if (!VALUE.test(text)) throw new TypeError(`${JSON.stringify(text)} is no value of a header`);
    return text;
  }

  function flat(headers) {
    const list = [];
    for (const [name, value] of headers) list.push(name, value);
    return list;
  }

  // ---- Bodies -----------------------------------------------------------------------------------

  // Ends what nobody can read any more.
  let unread;

  // The body of a response, as the host gets it.
  class Incoming {
    #number;
    #signal;
    #over = false;
    constructor(number, signal) {
      this.#number = number;
      this.#signal = signal;
      // Made when it is needed: a snapshot of the engine holds none.
      unread ??= FinalizationRegistry && new FinalizationRegistry((number) => op_qx_fetch_close(number));
      unread?.register(this, number, this);
    }
    async next() {
      if (this.#over) return undefined;
      try {
        const item = await unless(this.#signal, op_qx_fetch_read(this.#number), this.#number);
        if (item !== undefined) return item[0];
      } catch (parts) {
        this.close();
        throw Array.isArray(parts) ? network(parts, this.next) : parts;
      }
      this.close();
      return undefined;
    }
    close() {
      if (this.#over) return;
      this.#over = true;
      unread?.unregister(this);
      op_qx_fetch_close(this.#number);
    }
  }

  // A body that is there.
  class Whole {
    #bytes;
    constructor(bytes) {
      this.#bytes = bytes;
    }
    async next() {
      const bytes = await this.#bytes;
      this.#bytes = undefined;
      return bytes?.length > 0 ? bytes : undefined;
    }
    close() {
      this.#bytes = undefined;
    }
  }

  async function collect(source) {
    const chunks = [];
    let length = 0;
    for (let chunk; (chunk = await source.next()) !== undefined; length += chunk.length) chunks.push(chunk);
    if (chunks.length === 1) return chunks[0];
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  }

  // A body to read piece by piece: an async iterable, or by a reader.
  class BodyStream {
    #source;
    #locked = false;
    constructor(key, source) {
      if (key !== secret) throw new TypeError("a stream comes with a body");
      this.#source = source;
    }
    get locked() {
      return this.#locked;
    }
    getReader() {
      this.#take();
      const source = this.#source;
      return {
        async read() {
          const value = await source.next();
          return { done: value === undefined, value };
        },
        cancel: async () => source.close(),
        releaseLock: () => {
          this.#locked = false;
        },
      };
    }
    async cancel() {
      this.#source.close();
    }
    async *[Symbol.asyncIterator]() {
      this.#take();
      try {
        for (let chunk; (chunk = await this.#source.next()) !== undefined; ) yield chunk;
      } finally {
        this.#source.close();
      }
    }
    #take() {
      if (this.#locked) throw new TypeError("somebody reads the stream already");
      this.#locked = true;
    }
  }

  let take, fork;

  class Body {
    #source;
    #used = false;
    #stream;
    constructor(source) {
      this.#source = source;
    }
    get body() {
      if (this.#source === undefined) return null;
      const next = () => {
        this.#used = true;
        return this.#source.next();
      };
      this.#stream ??= new BodyStream(secret, { next, close: () => this.#source.close() });
      return this.#stream;
    }
    get bodyUsed() {
      return this.#used;
    }
    async bytes() {
      return collect(take(this));
    }
    async arrayBuffer() {
      const bytes = await this.bytes();
      const whole = bytes.byteLength === bytes.buffer.byteLength;
      return whole ? bytes.buffer : bytes.slice().buffer;
    }
    async text() {
      return decode(await this.bytes());
    }
    async json() {
      return JSON.parse(await this.text());
    }
    static {
      take = (body) => {
        if (body.#used || body.#stream?.locked) throw new TypeError("the body was read already");
        body.#used = body.#source !== undefined;
        return body.#source ?? new Whole();
      };
      // The body for a second one too. Both then have it as a whole.
      fork = (body) => {
        if (body.#source === undefined) return undefined;
        const bytes = collect(take(body));
        // Each who reads it sees how that ended.
        bytes.catch(() => {});
        body.#used = false;
        body.#stream = undefined;
        body.#source = new Whole(bytes);
        return new Whole(bytes.then((bytes) => bytes.slice()));
      };
    }
  }

  // What an author gives as a body, as bytes and their type.
  function extract(body) {
    if (body === undefined || body === null) return [undefined, undefined];
    if (ArrayBuffer.isView(body)) return [new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice()];
    if (body instanceof ArrayBuffer) return [new Uint8Array(body).slice()];
    if (typeof body === "object" && typeof body[Symbol.asyncIterator] === "function") {
      throw new TypeError("a stream cannot be sent as a body; collect it first");
    }
    return [encode(String(body).toWellFormed()), "text/plain;charset=UTF-8"];
  }

  // ---- Requests and responses -------------------------------------------------------------------

  const STANDARD = ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"];
  const REDIRECTS = ["follow", "error", "manual"];

  let sent;

  class Request extends Body {
    #method = "GET";
    #url;
    #headers;
    #redirect = "follow";
    #signal = null;
    #bytes;
    constructor(input, init = {}) {
      init ??= {};
      const other = typeof input === "object" && input !== null && #url in input ? input : undefined;
      let [bytes, type] = extract(init.body);
      if (bytes === undefined && init.body === undefined && other?.#bytes !== undefined) {
        take(other);
        bytes = other.#bytes;
      }
      super(bytes === undefined ? undefined : new Whole(bytes));
      this.#bytes = bytes;
      this.#url = other?.#url ?? String(input);
      this.#headers = new Headers(init.headers ?? other?.#headers);
      this.#signal = init.signal ?? other?.#signal ?? null;
      this.#redirect = String(init.redirect ?? other?.#redirect ?? "follow");
      if (!REDIRECTS.includes(this.#redirect)) throw new TypeError(`there is no redirect ${this.#redirect}`);
      const method = String(init.method ?? other?.#method ?? "GET");
      const upper = method.toUpperCase();
      this.#method = STANDARD.includes(upper) ? upper : method;
      if (!NAME.test(method) || ["CONNECT", "TRACE", "TRACK"].includes(upper)) {
        throw new TypeError(`${method} is no method of a request`);
      }
      if (bytes !== undefined && (this.#method === "GET" || this.#method === "HEAD")) {
        throw new TypeError(`a request with method ${this.#method} has no body`);
      }
      if (type !== undefined && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
    }
    get method() {
      return this.#method;
    }
    get url() {
      return this.#url;
    }
    get headers() {
      return this.#headers;
    }
    get redirect() {
      return this.#redirect;
    }
    get signal() {
      return this.#signal;
    }
    clone() {
      if (this.bodyUsed) throw new TypeError("the body was read already");
      return new Request(this.#url, {
        method: this.#method,
        headers: this.#headers,
        body: this.#bytes,
        redirect: this.#redirect,
        signal: this.#signal,
      });
    }
    static {
      sent = (request) => {
        if (request.#bytes !== undefined) take(request);
        const { method, url, headers, redirect } = request;
        return [method, url, flat(headers), request.#bytes ?? null, redirect];
      };
    }
  }

  const NO_BODY = [101, 103, 204, 205, 304];

  let received;

  class Response extends Body {
    #status;
    #statusText;
    #headers;
    #url = "";
    #redirected = false;
    #type = "default";
    constructor(body, init = {}, key, source) {
      init ??= {};
      const [bytes, type] = key === secret ? [] : extract(body);
      super(key === secret ? source : bytes && new Whole(bytes));
      this.#status = Number(init.status ?? 200);
      this.#statusText = String(init.statusText ?? "");
      this.#headers = new Headers(init.headers);
      if (key === secret) return;
      if (!(this.#status >= 200 && this.#status <= 599)) throw new RangeError(`${init.status} is no status`);
      if (bytes !== undefined && NO_BODY.includes(this.#status)) {
        throw new TypeError(`a response with status ${this.#status} has no body`);
      }
      if (type !== undefined && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
    }
    get status() {
      return this.#status;
    }
    get statusText() {
      return this.#statusText;
    }
    get ok() {
      return this.#status >= 200 && this.#status <= 299;
    }
    get headers() {
      return this.#headers;
    }
    get url() {
      return this.#url;
    }
    get redirected() {
      return this.#redirected;
    }
    get type() {
      return this.#type;
    }
    clone() {
      if (this.bodyUsed) throw new TypeError("the body was read already");
      const { status, statusText, headers } = this;
      const twin = new Response(null, { status, statusText, headers }, secret, fork(this));
      twin.#url = this.#url;
      twin.#redirected = this.#redirected;
      twin.#type = this.#type;
      return twin;
    }
    static json(value, init) {
      const headers = new Headers(init?.headers);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      return new Response(JSON.stringify(value), { ...init, headers });
    }
    static error() {
      const response = new Response(null, { status: 0 }, secret);
      response.#type = "error";
      return response;
    }
    static {
      received = ([status, statusText, url, redirected, list], source) => {
        const headers = new Headers();
        for (let i = 0; i < list.length; i += 2) headers.append(list[i], list[i + 1]);
        const response = new Response(null, { status, statusText, headers }, secret, source);
        response.#url = url;
        response.#redirected = redirected;
        response.#type = "basic";
        return response;
      };
    }
  }

  // ---- fetch ------------------------------------------------------------------------------------

  let numbers = 0;

  // What is asked for, unless the signal aborts before that.
  function unless(signal, promise, number) {
    if (signal === null) return promise;
    return new Promise((resolve, reject) => {
      const stop = () => {
        op_qx_fetch_close(number);
        reject(signal.reason);
      };
      const done = (settle) => (value) => {
        signal.removeEventListener("abort", stop);
        settle(value);
      };
      promise.then(done(resolve), done(reject));
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop);
    });
  }

  async function fetch(input, init) {
    const request = new Request(input, init);
    const { method, signal } = request;
    signal?.throwIfAborted();
    const number = (numbers = (numbers + 1) % 2 ** 31);
    let head;
    try {
      head = await unless(signal, op_qx_fetch(number, sent(request)), number);
    } catch (parts) {
      op_qx_fetch_close(number);
      throw Array.isArray(parts) ? network(parts, fetch) : parts;
    }
    const source = new Incoming(number, signal);
    const empty = method === "HEAD" || NO_BODY.includes(head[0]);
    if (empty) source.close();
    return received(head, empty ? undefined : source);
  }

  return { told: (error) => told.get(error), web: { Headers, Request, Response, fetch } };
});
