// Runs the loose piece of source code in the file SOURCE: a module, whose default export is what it
// comes to, or a function that returns that.
export async function run(...parameters) {
  const snippet = await import(SOURCE);
  if (!("default" in snippet)) {
    throw new TypeError("the source has no default export: write `export default` before what it comes to");
  }
  const value = snippet.default;
  return typeof value === "function" ? value(...parameters) : value;
}
