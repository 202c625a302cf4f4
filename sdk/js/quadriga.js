// What a JavaScript or TypeScript extension imports: `import { host } from "quadriga"`.
const provided = globalThis[Symbol.for("quadriga.host")];
if (provided === undefined) {
  throw new Error("the module \"quadriga\" works only inside of a Quadriga host");
}

export const { host, QuadrigaError, Timestamp } = provided;
