let count = 0;

export function add(n) {
  return (count += n);
}

export function snapshot() {
  return count;
}

export async function restore(before) {
  if (before < 0) throw new Error("a count is not negative");
  count = before;
}
