// The text of headings, and names to link to them by.

const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&nbsp;": " " };

/** The text of inline tokens, without markup. */
export function plainText(tokens) {
  const parts = tokens.map((token) => {
    if (token.type === "html") return "";
    if (token.type === "br") return " ";
    if (token.tokens) return plainText(token.tokens);
    // Code is literal; elsewhere entities stand for characters.
    return token.type === "codespan" ? token.text : token.text.replace(/&#?\w+;/g, (name) => ENTITIES[name] ?? name);
  });
  return parts.join("").trim();
}

/** A name for a heading that no other heading of the page has; `taken` counts them. */
export function headingId(text, taken) {
  const stem = text.toLowerCase().replace(/[^\p{L}\p{N}\p{M}_\- ]/gu, "").replaceAll(" ", "-") || "section";
  let id = stem;
  for (let n = 1; taken.has(id); n++) id = `${stem}-${n}`;
  taken.add(id);
  return id;
}
