// Events and abort signals of the web platform: https://dom.spec.whatwg.org. Runs before
// bootstrap.js, which takes the function away and calls it.
"use strict";
// In parentheses, so that the engine compiles it at once, and keeps that for the next isolate.
globalThis.__quadriga_events = (({ report, setTimeout }) => {
  const { performance, Error, Map, Number, RangeError, Set, String, Symbol, TypeError } = globalThis;
  const secret = Symbol("quadriga");
  const now = () => performance.now();

  const CODES = { __proto__: null, AbortError: 20, DataCloneError: 25, TimeoutError: 23 };

  class DOMException extends Error {
    #name;
    constructor(message = "", name = "Error") {
      super(String(message));
      this.#name = String(name);
    }
    get name() {
      return this.#name;
    }
    get code() {
      return CODES[this.#name] ?? 0;
    }
  }

  let dispatch;

  class Event {
    #type;
    #target = null;
    #cancelable;
    #prevented = false;
    #stopped = false;
    #time = now();
    constructor(type, { cancelable = false } = {}) {
      this.#type = String(type);
      this.#cancelable = !!cancelable;
    }
    get type() {
      return this.#type;
    }
    get target() {
      return this.#target;
    }
    get currentTarget() {
      return this.#target;
    }
    get cancelable() {
      return this.#cancelable;
    }
    get defaultPrevented() {
      return this.#prevented;
    }
    get timeStamp() {
      return this.#time;
    }
    preventDefault() {
      if (this.#cancelable) this.#prevented = true;
    }
    stopPropagation() {}
    stopImmediatePropagation() {
      this.#stopped = true;
    }
    static {
      dispatch = (event, target, listeners) => {
        event.#target = target;
        for (const [callback, once] of listeners()) {
          if (event.#stopped) break;
          once?.();
          try {
            if (typeof callback === "function") callback.call(target, event);
            else callback.handleEvent(event);
          } catch (error) {
            report(error);
          }
        }
        return !event.#prevented;
      };
    }
  }

  class EventTarget {
    #listeners = new Map();
    addEventListener(type, callback, options) {
      if (callback === null || callback === undefined) return;
      const { once = false, signal } = typeof options === "object" && options !== null ? options : {};
      if (signal?.aborted) return;
      type = String(type);
      const known = this.#listeners.get(type) ?? new Map();
      if (known.has(callback)) return;
      known.set(callback, once);
      this.#listeners.set(type, known);
      signal?.addEventListener("abort", () => this.removeEventListener(type, callback), { once: true });
    }
    removeEventListener(type, callback) {
      this.#listeners.get(String(type))?.delete(callback);
    }
    dispatchEvent(event) {
      const listeners = () => {
        const known = this.#listeners.get(event.type) ?? new Map();
        const remove = (callback) => () => known.delete(callback);
        const found = [...known].map(([callback, once]) => [callback, once ? remove(callback) : undefined]);
        const handler = this[`on${event.type}`];
        if (typeof handler === "function") found.unshift([handler]);
        return found;
      };
      return dispatch(event, this, listeners);
    }
  }

  let abort;

  class AbortSignal extends EventTarget {
    #aborted = false;
    #reason;
    #followers = new Set();
    onabort = null;
    constructor(key) {
      if (key !== secret) throw new TypeError("an AbortSignal comes from an AbortController");
      super();
    }
    get aborted() {
      return this.#aborted;
    }
    get reason() {
      return this.#reason;
    }
    throwIfAborted() {
      if (this.#aborted) throw this.#reason;
    }
    static abort(reason) {
      const signal = new AbortSignal(secret);
      abort(signal, reason);
      return signal;
    }
    static timeout(delay) {
      if (!(Number(delay) >= 0)) throw new RangeError("a timeout is a number of milliseconds, zero or more");
      const signal = new AbortSignal(secret);
      setTimeout(() => abort(signal, new DOMException("the time is up", "TimeoutError")), Number(delay));
      return signal;
    }
    static any(signals) {
      const all = [...signals];
      const signal = new AbortSignal(secret);
      const first = all.find((one) => one.#aborted);
      if (first !== undefined) abort(signal, first.#reason);
      else for (const one of all) one.#followers.add(signal);
      return signal;
    }
    static {
      abort = (signal, reason) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reason === undefined ? new DOMException("the work was aborted", "AbortError") : reason;
        signal.dispatchEvent(new Event("abort"));
        for (const follower of signal.#followers) abort(follower, signal.#reason);
        signal.#followers.clear();
      };
    }
  }

  class AbortController {
    #signal = new AbortSignal(secret);
    get signal() {
      return this.#signal;
    }
    abort(reason) {
      abort(this.#signal, reason);
    }
  }

  return { AbortController, AbortSignal, DOMException, Event, EventTarget };
});
