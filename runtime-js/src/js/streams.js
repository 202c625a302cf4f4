// Streams: async iterables between the extension and its peers. Runs before bootstrap.js, which
// takes the function away and calls it with what it needs.
"use strict";
// In parentheses, so that the engine compiles it at once, and keeps that for the next isolate.
globalThis.__quadriga_streams = (({ ops, failed }) => {
  const { op_qx_channel, op_qx_close, op_qx_emit, op_qx_finish, op_qx_next, op_qx_read, op_qx_write } = ops;
  const { Promise, Symbol, TypeError } = globalThis;

  // An async iterator over what `pull` gives: `[item]`, or undefined at the end.
  function iterator(pull, close) {
    let over = false;
    let last = Promise.resolve();
    async function step() {
      if (over) return { done: true, value: undefined };
      let item;
      try {
        item = await pull();
      } catch (parts) {
        over = true;
        close();
        throw failed(parts, step);
      }
      if (item !== undefined) return { done: false, value: item[0] };
      over = true;
      close();
      return { done: true, value: undefined };
    }
    return {
      // One at a time, whoever asks.
      next: () => (last = last.then(step, step)),
      async return(value) {
        over = true;
        close();
        return { done: true, value };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  // The stream among the arguments of a call.
  function input(call) {
    return iterator(
      () => op_qx_next(call),
      () => {},
    );
  }

  // Hands on the items of a generator, and waits where the consumer has enough to read.
  async function drain(items, call) {
    for await (const item of items) {
      const room = op_qx_emit(call, item);
      if (room !== undefined) {
        try {
          await room;
        } catch (parts) {
          throw failed(parts, drain);
        }
      }
    }
  }

  function begin(extension, method, args, index, output) {
    try {
      return op_qx_channel(extension, method, args, index, output);
    } catch (error) {
      throw error.parts === undefined ? error : failed(error.parts, begin);
    }
  }

  function stream(extension, method, ...args) {
    if (args.some(isStream)) throw new TypeError("host.stream reads a stream; only host.call can send one");
    const channel = begin(extension, method, args, -1, true);
    return iterator(
      () => op_qx_read(channel),
      () => op_qx_close(channel),
    );
  }

  // Sends a stream along with a call, until its callee has heard enough.
  async function feed(extension, method, args, index) {
    const channel = begin(extension, method, args, index, false);
    try {
      for await (const item of args[index]) {
        if (!(await op_qx_write(channel, item))) break;
      }
      op_qx_finish(channel);
      const reply = await op_qx_read(channel);
      return reply?.[0];
    } finally {
      op_qx_close(channel);
    }
  }

  function isStream(value) {
    if (typeof value !== "object" || value === null) return false;
    if (typeof value[Symbol.asyncIterator] === "function") return true;
    return typeof value[Symbol.iterator] === "function" && typeof value.next === "function";
  }

  return { drain, feed, input, isStream, stream };
});
