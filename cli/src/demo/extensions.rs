//! The four extensions, as functions.

use std::collections::BTreeMap;
use std::path::Path;

use quadriga::Dispatcher;
use quadriga::abi::{Error, ErrorCode};
use serde::{Deserialize, Serialize};

/// Where each is inside the folder of the built extensions. The renderer calls the highlighter,
/// and so comes after it.
pub(super) const FOLDERS: [&str; 4] = ["highlight", "render", "sanitize", "assets"];

pub(super) const RENDER: &str = "site.render";
pub(super) const HIGHLIGHT: &str = "site.highlight";
const SANITIZE: &str = "site.sanitize";
const ASSETS: &str = "site.assets";

/// What the renderer is told of a page.
#[derive(Serialize)]
pub(super) struct PageInfo<'a> {
    pub(super) path: &'a str,
    /// Paths of the sources that are not simply `.html` instead of `.md` in the site.
    pub(super) links: &'a BTreeMap<String, String>,
}

/// A page as HTML.
#[derive(Deserialize)]
pub(super) struct Rendered {
    pub(super) html: String,
    pub(super) title: String,
    pub(super) headings: Vec<Heading>,
    pub(super) failed: Vec<PlainBlock>,
}

#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Heading {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) level: u8,
}

/// A code block that could not be highlighted.
#[derive(Deserialize)]
pub(super) struct PlainBlock {
    #[serde(default)]
    pub(super) line: Option<u32>,
    pub(super) language: String,
    pub(super) message: String,
}

/// A file that was written.
#[derive(Clone, Deserialize)]
pub(super) struct Asset {
    /// Its path inside the site.
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) gzip_bytes: u64,
}

/// The four together.
#[derive(Clone)]
pub(super) struct Extensions {
    dispatcher: Dispatcher,
}

impl Extensions {
    pub(super) fn new(dispatcher: &Dispatcher) -> Self {
        Self { dispatcher: dispatcher.clone() }
    }

    pub(super) async fn render(&self, markdown: &str, page: &PageInfo<'_>) -> Result<Rendered, Error> {
        self.dispatcher.invoke(RENDER, "render", &(markdown, page)).await
    }

    pub(super) async fn sanitize(&self, html: &str) -> Result<String, Error> {
        self.dispatcher.invoke(SANITIZE, "sanitize", &(html,)).await
    }

    /// The style sheet for highlighted code.
    pub(super) async fn styles(&self) -> Result<String, Error> {
        self.dispatcher.invoke(HIGHLIGHT, "styles", &()).await
    }

    /// Writes a file under a name with a hash of its content.
    pub(super) async fn asset(&self, out: &Path, name: &str, content: &[u8]) -> Result<Asset, Error> {
        self.dispatcher.invoke(ASSETS, "write", &(text(out)?, name, content)).await
    }

    /// Writes a page under its own name.
    pub(super) async fn page(&self, out: &Path, name: &str, html: &str) -> Result<Asset, Error> {
        self.dispatcher.invoke(ASSETS, "page", &(text(out)?, name, html)).await
    }
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| {
        let message = format!("{} is not UTF-8, and cannot be told to an extension", path.display());
        Error::new(ErrorCode::InvalidValue, message)
    })
}
