use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use quadriga::Dispatcher;
use quadriga::abi::Error;
use tokio::sync::Semaphore;

use super::contents::{self, Contents};
use super::extensions::{Asset, Extensions, HIGHLIGHT, Heading, PageInfo, RENDER};
use super::page::{self, Assets};
use super::progress::Progress;
use super::sources::{Source, Sources};
use crate::failure::Advice;

/// How many pages are worked on at once.
const AT_ONCE: usize = 8;

/// A page between rendering and writing.
pub(super) struct Page {
    /// Its path inside the site.
    pub(super) target: String,
    pub(super) title: String,
    pub(super) headings: Vec<Heading>,
    /// Its content, safe to be shown.
    pub(super) html: String,
}

/// What was made, and what went wrong.
#[derive(Default)]
pub(super) struct Made {
    pub(super) pages: usize,
    pub(super) images: usize,
    pub(super) bytes: u64,
    pub(super) gzip_bytes: u64,
    /// Blocks that stayed plain; their pages are there.
    pub(super) plain: Vec<Trouble>,
    /// Pages that are not there.
    pub(super) missing: Vec<Trouble>,
}

/// Something that went wrong with a page.
pub(super) struct Trouble {
    /// The Markdown file.
    pub(super) page: String,
    pub(super) line: Option<u32>,
    pub(super) language: Option<String>,
    pub(super) extension: Option<String>,
    pub(super) message: String,
}

/// Makes the site in the folder `out`.
pub(super) async fn make(
    dispatcher: &Dispatcher,
    sources: Sources,
    out: &Path,
    progress: &Progress,
) -> Result<Made> {
    let extensions = Extensions::new(dispatcher);
    progress.steps(sources.images.len() + 2 * sources.pages.len() + 2);
    let mut made = Made::default();

    let mut links: BTreeMap<String, String> = BTreeMap::new();
    made.images = sources.images.len();
    for (path, asset) in images(&extensions, sources.images, out, progress).await? {
        made.count(&asset);
        links.insert(path, asset.path);
    }
    // Of the pages, only a README has a name in the site that its own does not tell.
    let renamed = sources.pages.iter().filter(|page| page.target.ends_with("index.html"));
    links.extend(renamed.map(|page| (page.path.clone(), page.target.clone())));

    let pages = render(&extensions, sources.pages, links, progress, &mut made).await?;
    let contents = Contents::new(sources.name, &pages);
    let css = format!("{}\n{}", page::STYLE, extensions.styles().await?);
    let css = write(&extensions, out, "site.css", css.as_bytes(), progress).await?;
    let search = contents::search(&pages)?;
    let search = write(&extensions, out, "search.js", search.as_bytes(), progress).await?;
    made.count(&css);
    made.count(&search);

    let assets = Assets { css: css.path, search: search.path };
    finish(&extensions, pages, contents, assets, out, progress, &mut made).await?;
    Ok(made)
}

async fn write(
    extensions: &Extensions,
    out: &Path,
    name: &str,
    content: &[u8],
    progress: &Progress,
) -> Result<Asset, Error> {
    let asset = extensions.asset(out, name, content).await?;
    progress.step(&format!("wrote {}", asset.path));
    Ok(asset)
}

async fn images(
    extensions: &Extensions,
    images: Vec<(String, PathBuf)>,
    out: &Path,
    progress: &Progress,
) -> Result<Vec<(String, Asset)>> {
    let (extensions, out, progress) = (extensions.clone(), out.to_owned(), progress.clone());
    let written = at_once(images, move |(path, file)| {
        let (extensions, out, progress) = (extensions.clone(), out.clone(), progress.clone());
        async move {
            let content = std::fs::read(&file).map_err(|error| {
                let message = format!("{} cannot be read: {error}", file.display());
                Advice::new(message, "make it readable, or move it away")
            })?;
            let asset = write(&extensions, &out, &path, &content, &progress).await?;
            anyhow::Ok((path, asset))
        }
    });
    written.await?.into_iter().collect()
}

/// Renders all pages. A page that fails is left out and reported.
async fn render(
    extensions: &Extensions,
    sources: Vec<Source>,
    links: BTreeMap<String, String>,
    progress: &Progress,
    made: &mut Made,
) -> Result<Vec<Page>> {
    let (extensions, progress, links) = (extensions.clone(), progress.clone(), Arc::new(links));
    let rendered = at_once(sources, move |source| {
        let (extensions, progress, links) = (extensions.clone(), progress.clone(), Arc::clone(&links));
        async move {
            let page = render_one(&extensions, &source, &links).await;
            progress.step(&format!("rendered {}", source.path));
            (source, page)
        }
    });
    let mut pages = Vec::new();
    for (source, page) in rendered.await? {
        match page {
            Ok((page, plain)) => {
                pages.push(page);
                made.plain.extend(plain);
            }
            Err(error) => made.missing.push(Trouble::of_page(&source.path, &error)),
        }
    }
    Ok(pages)
}

async fn render_one(
    extensions: &Extensions,
    source: &Source,
    links: &BTreeMap<String, String>,
) -> Result<(Page, Vec<Trouble>), Error> {
    let info = PageInfo { path: &source.path, links };
    let rendered = extensions.render(&source.markdown, &info).await?;
    let html = extensions.sanitize(&rendered.html).await?;
    let plain = rendered.failed.into_iter().map(|block| Trouble {
        page: source.path.clone(),
        line: block.line,
        language: Some(block.language),
        extension: Some(HIGHLIGHT.to_owned()),
        message: block.message,
    });
    let title = if rendered.title.is_empty() { source.path.clone() } else { rendered.title };
    let page = Page { target: source.target.clone(), title, headings: rendered.headings, html };
    Ok((page, plain.collect()))
}

/// Puts the pages into the template and writes them.
async fn finish(
    extensions: &Extensions,
    mut pages: Vec<Page>,
    contents: Contents,
    assets: Assets,
    out: &Path,
    progress: &Progress,
    made: &mut Made,
) -> Result<()> {
    if !pages.iter().any(|page| page.target == "index.html") {
        pages.push(contents.index());
    }
    let (extensions, out, progress) = (extensions.clone(), out.to_owned(), progress.clone());
    let shared = Arc::new((contents, assets));
    let written = at_once(pages, move |page| {
        let (extensions, out, progress) = (extensions.clone(), out.clone(), progress.clone());
        let shared = Arc::clone(&shared);
        async move {
            let html = page::wrap(&page, &shared.0, &shared.1);
            let result = extensions.page(&out, &page.target, &html).await;
            progress.step(&format!("wrote {}", page.target));
            (page.target, result)
        }
    });
    for (target, result) in written.await? {
        match result {
            Ok(asset) => {
                made.count(&asset);
                made.pages += 1;
            }
            Err(error) => made.missing.push(Trouble::of_page(&target, &error)),
        }
    }
    Ok(())
}

/// Works on a few items at a time, each in a task of its own: extensions may run on the thread
/// that calls them. The results come in the order of the items.
async fn at_once<T, F, R>(items: Vec<T>, work: impl Fn(T) -> F) -> Result<Vec<R>>
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = Vec::with_capacity(items.len());
    for item in items {
        let place = Arc::clone(&places).acquire_owned().await?;
        let work = work(item);
        tasks.push(tokio::spawn(async move {
            let result = work.await;
            drop(place);
            result
        }));
    }
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.context("a part of the work panicked")?);
    }
    Ok(results)
}

impl Made {
    fn count(&mut self, asset: &Asset) {
        self.bytes += asset.bytes;
        self.gzip_bytes += asset.gzip_bytes;
    }
}

impl Trouble {
    fn of_page(page: &str, error: &Error) -> Self {
        let root = error.chain().last().unwrap_or(error);
        Self {
            page: page.to_owned(),
            line: None,
            language: None,
            extension: root.extension.clone().or_else(|| Some(RENDER.to_owned())),
            message: error.message.clone(),
        }
    }
}
