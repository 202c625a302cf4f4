// Finds pages by their titles and headings. `pages` stands above: [path, title, [[id, text], …]].

const up = document.body.dataset.up;
const box = document.querySelector(".search");
const input = box.querySelector("input");
const list = box.querySelector("ul");
const MOST = 12;

const entries = pages.flatMap(([path, title, headings]) => [
  { href: path, text: title, page: "", weight: 2 },
  ...headings
    .filter(([, text]) => text !== title)
    .map(([id, text]) => ({ href: `${path}#${encodeURIComponent(id)}`, text, page: title, weight: 0 })),
]);

function score(entry, words) {
  const text = entry.text.toLowerCase();
  const around = entry.page.toLowerCase();
  let sum = entry.weight;
  for (const word of words) {
    const at = text.indexOf(word);
    if (at === 0) sum += 4;
    else if (at > 0) sum += /\w/.test(text[at - 1]) ? 1 : 3;
    else if (!around.includes(word)) return -1;
  }
  return sum;
}

function show() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length === 0 ? [] : entries.map((entry) => [score(entry, words), entry]);
  const best = found.filter(([points]) => points >= 0).sort(([a], [b]) => b - a).slice(0, MOST);
  list.replaceChildren(
    ...best.map(([, entry]) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = up + entry.href;
      link.append(entry.text);
      if (entry.page !== "") {
        const page = document.createElement("small");
        page.append(entry.page);
        link.append(page);
      }
      item.append(link);
      return item;
    }),
  );
  if (words.length > 0 && best.length === 0) {
    const none = document.createElement("li");
    none.append("Nothing found");
    list.append(none);
  }
}

// The arrow keys walk through the field and what was found.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const stops = [input, ...list.querySelectorAll("a")];
  const at = stops.indexOf(document.activeElement);
  if (event.key === "Escape") {
    input.value = "";
    show();
    input.focus();
  } else if (step !== undefined && at !== -1) {
    event.preventDefault();
    stops[(at + step + stops.length) % stops.length].focus();
  } else if (event.key === "Enter" && document.activeElement === input) {
    stops[1]?.click();
  }
}

box.hidden = false;
input.addEventListener("input", show);
box.addEventListener("keydown", walk);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, textarea")) {
    event.preventDefault();
    input.focus();
  }
});

// On a small screen the list of pages is folded until it is wanted.
if (matchMedia("(max-width: 50rem)").matches) document.querySelector("details.nav").open = false;
