// A component that ComponentizeJS made of the published WIT and a MessagePack library of npm:
// nothing in it is ours.
import { call as callOther } from "quadriga:extension/host@0.1.0";
import { decode, decodeTimestampToTimeSpec, encode, encodeTimeSpecToTimestamp, ExtensionCodec } from "./node_modules/@msgpack/msgpack/dist.esm/index.mjs";

/** A point in time, to the nanosecond. */
class Time {
  constructor({ sec, nsec }) {
    this.sec = sec;
    this.nsec = nsec;
  }
}

const extensionCodec = new ExtensionCodec();
extensionCodec.register({
  type: -1,
  encode: (value) => (value instanceof Time ? encodeTimeSpecToTimestamp(value) : null),
  decode: (bytes) => new Time(decodeTimestampToTimeSpec(bytes)),
});
const options = { extensionCodec, useBigInt64: true, maxDepth: 130 };

const methods = {
  echo: (value) => value,
  relay: (extension, method, value) => decode(callOther(extension, method, encode([value], options)), options),
  fail: (message) => {
    throw new RangeError(message);
  },
};

const describeMethod = (name, parameters) => ({
  name,
  doc: "",
  parameters: parameters.map((parameter) => ({ name: parameter, ty: undefined, optional: false })),
  returns: undefined,
  streams: false,
  input: undefined,
  output: undefined,
});

export const guest = {
  describe: () => ({
    protocol: "0.1.0",
    sdk: "ComponentizeJS",
    features: ["host-calls"],
    methods: [
      describeMethod("echo", ["value"]),
      describeMethod("relay", ["extension", "method", "value"]),
      describeMethod("fail", ["message"]),
    ],
  }),

  call(method, args) {
    try {
      return encode(methods[method](...decode(args, options)), options);
    } catch (error) {
      throw failure(error);
    }
  },
};

function failure(error) {
  const received = error.payload;
  if (received === undefined) {
    return { code: "extension_error", message: `${error.name}: ${error.message}`, stack: error.stack };
  }
  // An error of the host, or of another extension, goes on with itself as the cause.
  const cause = { ...received, cause: received.cause && decode(received.cause) };
  const { code, message, hint } = received;
  return { code, message, hint, stack: error.stack, cause: encode(cause, { ignoreUndefined: true }) };
}
