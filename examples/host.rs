use std::path::Path;

use quadriga::abi::{Error, Isolation};
use quadriga::{Dispatcher, Grant, LoadOptions, Policy};

/// Python and native code share this process's memory: to load them is to trust them.
fn host() -> std::io::Result<Dispatcher> {
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    quadriga::builder().policy(policy).build()
}

/// Loads an extension in each language and lets it greet.
async fn greetings(host: &Dispatcher, folder: &Path) -> Result<Vec<String>, Error> {
    let mut greetings = Vec::new();
    for language in ["js", "python", "wasm", "native"] {
        let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
        let id = host.load(folder.join(language), options).await?;
        greetings.push(host.invoke(id.as_str(), "greet", &("Ada",)).await?);
    }
    Ok(greetings)
}
