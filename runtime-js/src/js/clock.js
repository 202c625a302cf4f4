// What an extension can read of the time, no finer than it was granted. Runs before bootstrap.js,
// which takes the function away and calls it.
"use strict";
// In parentheses, so that the engine compiles it at once, and keeps that for the next isolate.
globalThis.__quadriga_clock = (({ op_qx_clock_step, op_qx_monotonic, op_qx_wall }) => {
  const { Intl, Math, Number, Object, Reflect, Temporal } = globalThis;
  const Original = globalThis.Date;

  function put(object, name, value) {
    Object.defineProperty(object, name, { __proto__: null, value, configurable: true, writable: true });
  }

  const now = () => Number(op_qx_wall() / 1_000_000n);

  class Performance {
    #origin = now() - Math.floor(op_qx_monotonic());
    get timeOrigin() {
      return this.#origin;
    }
    now() {
      return op_qx_monotonic();
    }
    toJSON() {
      return { timeOrigin: this.#origin };
    }
  }
  put(globalThis, "performance", new Performance());

  if (Temporal !== undefined) {
    const { Instant, Now } = Temporal;
    const { timeZoneId } = Now;
    const instant = () => Instant.fromEpochNanoseconds(op_qx_wall());
    const zoned = (zone = timeZoneId()) => instant().toZonedDateTimeISO(zone);
    put(Now, "instant", instant);
    put(Now, "zonedDateTimeISO", zoned);
    put(Now, "plainDateTimeISO", (zone) => zoned(zone).toPlainDateTime());
    put(Now, "plainDateISO", (zone) => zoned(zone).toPlainDate());
    put(Now, "plainTimeISO", (zone) => zoned(zone).toPlainTime());
  }

  // By itself a Date knows of nothing finer than a millisecond.
  if (op_qx_clock_step() <= 1) return;

  function Date(...parts) {
    if (new.target === undefined) return new Original(now()).toString();
    return Reflect.construct(Original, parts.length === 0 ? [now()] : parts, new.target);
  }
  const properties = Object.getOwnPropertyDescriptors(Original);
  delete properties.prototype;
  Object.defineProperties(Date, properties);
  put(Date, "now", now);
  Object.defineProperty(Date, "prototype", { __proto__: null, value: Original.prototype, writable: false });
  put(Original.prototype, "constructor", Date);
  put(globalThis, "Date", Date);

  // What formats a date takes the present moment where it is given none.
  const formats = Intl?.DateTimeFormat.prototype;
  if (formats === undefined) return;
  const { format, formatToParts } = Object.getOwnPropertyDescriptors(formats);
  put(formats, "formatToParts", function (date = now()) {
    return Reflect.apply(formatToParts.value, this, [date]);
  });
  Object.defineProperty(formats, "format", {
    __proto__: null,
    ...format,
    get() {
      const bound = Reflect.apply(format.get, this, []);
      return (date = now()) => bound(date);
    },
  });
});
