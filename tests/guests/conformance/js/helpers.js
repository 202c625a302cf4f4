// What the literals are written with.

export function nested(depth) {
  let value = null;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}

export function nested_maps(depth) {
  let value = null;
  for (let i = 0; i < depth; i++) value = { k: value };
  return value;
}

export function cycle() {
  const list = [];
  list.push(list);
  return list;
}
