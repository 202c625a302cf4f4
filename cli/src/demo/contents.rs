//! What the pages have in common: the navigation and the search.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use super::page::escape;
use super::site::Page;

const SEARCH: &str = include_str!("search.js");

/// The list of all pages.
pub(super) struct Contents {
    /// The title of the site.
    pub(super) title: String,
    /// Paths and titles, in the order of the navigation.
    entries: Vec<(String, String)>,
}

impl Contents {
    /// `folder` names a site whose index has no title.
    pub(super) fn new(folder: String, pages: &[Page]) -> Self {
        let index = pages.iter().find(|page| page.target == "index.html");
        let title = index.map_or(folder, |page| page.title.clone());
        let entries = pages.iter().map(|page| (page.target.clone(), page.title.clone())).collect();
        Self { title, entries }
    }

    /// A page that lists all pages, for a site without an index of its own.
    pub(super) fn index(&self) -> Page {
        let html = format!("<h1>{}</h1>\n{}", escape(&self.title), self.list("", ""));
        Page { target: "index.html".to_owned(), title: self.title.clone(), headings: Vec::new(), html }
    }

    /// The pages as nested lists. `up` leads from the current page to the top of the site.
    pub(super) fn list(&self, up: &str, current: &str) -> String {
        let mut html = String::from("<ul>\n");
        let mut open: Vec<&str> = Vec::new();
        for (target, title) in &self.entries {
            let folders: Vec<&str> = target.split('/').collect();
            let folders = &folders[..folders.len() - 1];
            let shared = open.iter().zip(folders).take_while(|(a, b)| a == b).count();
            for _ in shared..open.len() {
                html.push_str("</ul></li>\n");
            }
            open.truncate(shared);
            for folder in &folders[shared..] {
                let _ = writeln!(html, "<li><span>{}</span><ul>", escape(folder));
                open.push(folder);
            }
            let here = if target == current { " aria-current=\"page\"" } else { "" };
            let href = escape(&link(up, target));
            let _ = writeln!(html, "<li><a href=\"{href}\"{here}>{}</a></li>", escape(title));
        }
        for _ in open {
            html.push_str("</ul></li>\n");
        }
        html.push_str("</ul>\n");
        html
    }
}

/// The script for the search, with what there is to find in it.
pub(super) fn search(pages: &[Page]) -> Result<String> {
    let entries: Vec<_> = pages
        .iter()
        .map(|page| {
            let headings = page.headings.iter().map(|heading| json!([heading.id, heading.text]));
            json!([link("", &page.target), page.title, headings.collect::<Vec<_>>()])
        })
        .collect();
    Ok(format!("const pages = {};\n{SEARCH}", serde_json::to_string(&entries)?))
}

/// The address of a page of the site: characters that mean something in addresses are escaped.
pub(super) fn link(up: &str, target: &str) -> String {
    let mut out = up.to_owned();
    for byte in target.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                out.push(byte.into())
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Contents, Page, link};

    #[test]
    fn folders_nest() {
        let page = |target: &str| Page {
            target: target.to_owned(),
            title: target.replace('/', " <"),
            headings: Vec::new(),
            html: String::new(),
        };
        let pages = [page("index.html"), page("a/b/c.html"), page("a/d.html"), page("e/f.html")];
        let list = Contents::new("docs".to_owned(), &pages).list("../", "a/d.html");
        let expected = "\
<ul>
<li><a href=\"../index.html\">index.html</a></li>
<li><span>a</span><ul>
<li><span>b</span><ul>
<li><a href=\"../a/b/c.html\">a &lt;b &lt;c.html</a></li>
</ul></li>
<li><a href=\"../a/d.html\" aria-current=\"page\">a &lt;d.html</a></li>
</ul></li>
<li><span>e</span><ul>
<li><a href=\"../e/f.html\">e &lt;f.html</a></li>
</ul></li>
</ul>
";
        assert_eq!(list, expected);
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(link("../", "a b/100%#?.html"), "../a%20b/100%25%23%3F.html");
    }
}
