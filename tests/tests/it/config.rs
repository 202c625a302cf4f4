//! Settings of a running extension change in every language, in the host's process and in workers.

use std::fs;
use std::path::Path;

use quadriga::abi::{ErrorCode, Isolation};
use quadriga::{Grant, LoadOptions, Policy, Settings};
use quadriga_tests::{guest, with};
use serde_json::json;

use crate::services::PLACES;

const SCHEMA: &str = "[config.schema.properties]\ncolour = { enum = ['green', 'red'] }";

/// Has a method of the extension be asked.
fn asking(package: &Path, method: &str) {
    let path = package.join("quadriga.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("[config]\n", &format!("[config]\nmethod = '{method}'\n"))).unwrap();
}

fn colour(colour: &str) -> Settings {
    Settings::from_iter([("colour".to_owned(), json!(colour))])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_language_goes_on_with_other_settings_or_refuses_them() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
        let host = quadriga::builder().policy(policy).build().unwrap();
        let package = with(&guest("relay", language), SCHEMA);
        asking(package.path(), "echo");
        let options =
            LoadOptions { grant: Grant::Nothing, isolation: Some(*isolation), ..LoadOptions::default() };
        let id = host.load(package.path(), options).await.unwrap();
        let id = id.as_str();
        let setting = async || host.invoke::<String>(id, "setting", &("colour",)).await.unwrap();
        assert_eq!(setting().await, "green");
        host.configure(id, colour("red")).await.unwrap();
        assert_eq!(setting().await, "red");
        let error = host.configure(id, colour("blue")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig, "{error:?}");
        // The manifest is read again by a reload, and what was set stays.
        asking(package.path(), "fail");
        let text = fs::read_to_string(package.path().join("quadriga.toml")).unwrap();
        fs::write(package.path().join("quadriga.toml"), text.replace("method = 'echo'\n", "")).unwrap();
        host.reload(id).await.unwrap();
        let error = host.configure(id, colour("green")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ConfigRefused, "{error:?}");
        assert_eq!(error.cause.as_ref().unwrap().extension.as_deref(), Some(id), "{error:?}");
        assert_eq!(setting().await, "red");
        host.shutdown().await;
    }
}
