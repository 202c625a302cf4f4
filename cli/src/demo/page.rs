//! The template around each page.

use super::contents::{Contents, link};
use super::extensions::Heading;
use super::site::Page;

pub(super) const STYLE: &str = include_str!("site.css");

/// Paths inside the site of what every page links to.
pub(super) struct Assets {
    pub(super) css: String,
    pub(super) search: String,
}

/// The whole document of a page.
pub(super) fn wrap(page: &Page, contents: &Contents, assets: &Assets) -> String {
    let up = "../".repeat(page.target.matches('/').count());
    let site = escape(&contents.title);
    let title = if page.title == contents.title {
        site.clone()
    } else {
        format!("{} · {site}", escape(&page.title))
    };
    let css = escape(&link(&up, &assets.css));
    let search = escape(&link(&up, &assets.search));
    let nav = contents.list(&up, &page.target);
    let toc = toc(&page.headings);
    let html = &page.html;
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Quadriga">
<title>{title}</title>
<link rel="stylesheet" href="{css}">
<script src="{search}" defer></script>
</head>
<body data-up="{up}">
<a class="skip" href="#content">Skip to the content</a>
<header>
<a class="site" href="{up}index.html">{site}</a>
<div class="search" role="search" hidden>
<input type="search" placeholder="Search" aria-label="Search titles and headings" autocomplete="off">
<ul></ul>
</div>
</header>
<div class="columns">
<details class="nav" open>
<summary>Pages</summary>
<nav aria-label="Pages">
{nav}</nav>
</details>
<main id="content">
{html}
</main>
{toc}</div>
</body>
</html>
"##
    )
}

/// The headings of the page, where there are enough to choose from.
fn toc(headings: &[Heading]) -> String {
    let items: Vec<String> = headings
        .iter()
        .filter(|heading| (2..=3).contains(&heading.level))
        .map(|heading| {
            let Heading { id, text, level } = heading;
            format!(
                "<li class=\"level-{level}\"><a href=\"#{}\">{}</a></li>\n",
                escape(&link("", id)),
                escape(text)
            )
        })
        .collect();
    if items.len() < 2 {
        return "<aside></aside>\n".to_owned();
    }
    format!(
        "<aside>\n<nav aria-label=\"On this page\">\n<p>On this page</p>\n<ul>\n{}</ul>\n</nav>\n</aside>\n",
        items.concat()
    )
}

/// Text as HTML, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
