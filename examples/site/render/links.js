// Links between pages: as they are among the sources, and as they are in the site.

/**
 * The target of a link or image on the page `from`. Paths in `links` become what is mapped there,
 * other Markdown files become HTML files of the same name; links that leave the site stay.
 */
export function siteLink(href, from, links) {
  const [, path, rest] = /^([^?#]*)(.*)$/s.exec(href);
  if (path === "" || path.startsWith("/") || /^[a-z][a-z0-9+.-]*:/i.test(path)) return href;
  const folder = from.split("/").slice(0, -1);
  const target = resolve(folder, decoded(path));
  if (target === undefined) return href;
  if (Object.hasOwn(links, target)) {
    return encodeURI(relative(folder, links[target].split("/"))) + rest;
  }
  return path.replace(/\.(md|markdown)$/i, ".html") + rest;
}

/** A path from the site's top, or nothing if it leaves the site. */
function resolve(folder, path) {
  const parts = [...folder];
  for (const part of path.split("/")) {
    if (part === "..") {
      if (parts.pop() === undefined) return undefined;
    } else if (part !== "." && part !== "") {
      parts.push(part);
    }
  }
  return parts.join("/");
}

function relative(folder, target) {
  let shared = 0;
  while (shared < folder.length && shared < target.length - 1 && folder[shared] === target[shared]) shared++;
  return [...folder.slice(shared).map(() => ".."), ...target.slice(shared)].join("/");
}

function decoded(path) {
  try {
    return decodeURI(path);
  } catch {
    return path;
  }
}
