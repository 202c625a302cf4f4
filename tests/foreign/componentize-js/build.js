// Makes a component of a module: node build.js TOOLCHAIN MODULE WIT COMPONENT
import { writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [toolchain, sourcePath, witPath, out] = process.argv.slice(2);
const { componentize } = await import(pathToFileURL(toolchain));
// The guest has no use for HTTP, neither to ask for it nor to serve it.
const disableFeatures = ["http", "fetch-event"];
const { component } = await componentize({ sourcePath, witPath, worldName: "extension", disableFeatures });
await writeFile(out, component);
