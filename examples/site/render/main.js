// Renders Markdown with `marked`; code blocks are highlighted by another extension.

import { host } from "quadriga";
import { Marked } from "./vendor/marked.js";
import { headingId, plainText } from "./headings.js";
import { siteLink } from "./links.js";

// How many blocks of one page may be at the highlighter at once.
const AT_ONCE = 16;

const marked = new Marked({
  gfm: true,
  renderer: {
    // What a page needs stands in its tokens, so that one renderer serves pages in parallel.
    heading({ tokens, depth, id }) {
      return `<h${depth} id="${id}">${this.parser.parseInline(tokens)}</h${depth}>\n`;
    },
    // Form controls have no place in a safe page.
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
    code({ text, language, highlighted }) {
      const name = language === "" ? "" : ` class="language-${escape(language)}"`;
      return `<pre class="highlight"><code${name}>${highlighted ?? escape(text)}</code></pre>\n`;
    },
  },
});

/**
 * Renders a page of Markdown.
 *
 * `page.path` is its path in the site's source; `page.links` maps such paths to the site's own,
 * where they differ by more than `.md` becoming `.html`.
 *
 * A code block whose highlighting fails stays plain and is listed in `failed`.
 */
export async function render(markdown, page = {}) {
  const { path = "", links = {} } = page;
  const tokens = marked.lexer(markdown);
  const blocks = [];
  const headings = [];
  const ids = new Set();
  marked.walkTokens(tokens, (token) => {
    if (token.type === "code") {
      token.language = /^[^\s,{]*/.exec(token.lang ?? "")[0];
      if (token.language !== "") blocks.push(token);
    } else if (token.type === "heading") {
      const text = plainText(token.tokens);
      token.id = headingId(text, ids);
      headings.push({ id: token.id, text, level: token.depth });
    } else if (token.type === "link" || token.type === "image") {
      token.href = siteLink(token.href, path, links);
    }
  });
  await highlightAll(blocks);
  return {
    html: marked.parser(tokens),
    title: (headings.find(({ level }) => level === 1) ?? headings[0])?.text ?? "",
    headings,
    failed: failures(blocks, markdown),
  };
}

async function highlightAll(blocks) {
  const waiting = blocks.values();
  async function worker() {
    for (const block of waiting) {
      try {
        block.highlighted = await host.call("site.highlight", "highlight", block.text, block.language);
      } catch (error) {
        block.error = error;
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, blocks.length) }, worker));
}

function failures(blocks, markdown) {
  const failed = [];
  let offset = 0;
  for (const { raw, language, error } of blocks) {
    // Blocks come in the order of the text. The opening fence is found there even where the block
    // is indented in a list.
    const fence = raw.split("\n", 1)[0].trim();
    const found = markdown.indexOf(fence, offset);
    if (found !== -1) offset = found + fence.length;
    if (error === undefined) continue;
    const failure = { language, message: error.message };
    if (found !== -1) failure.line = markdown.slice(0, found).split("\n").length;
    failed.push(failure);
  }
  return failed;
}

function escape(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}
