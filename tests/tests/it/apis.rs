//! Functions that extensions in every language add to an API of the host, called by the host and by
//! extensions in every language.

use std::fs;
use std::time::Duration;

use quadriga::abi::{ErrorCode, Isolation};
use quadriga::{Grant, LoadOptions, Policy, Provided};
use quadriga_tests::{guest, with};

use crate::services::PLACES;

#[tokio::test(flavor = "multi_thread")]
async fn each_language_adds_a_function_that_each_calls() {
    for workers in [false, true] {
        let load_timeout = Duration::from_secs(60);
        let policy = Policy { minimum_isolation: Isolation::None, load_timeout, ..Policy::default() };
        let host = quadriga::builder().policy(policy).build().unwrap();
        host.provide(Provided::new("app.text").unwrap().open("text")).unwrap();
        let mut packages = Vec::new();
        let places = || PLACES.iter().filter(|it| (it.1 == Isolation::Process) == workers);
        for (language, isolation) in places() {
            let adds = format!("[api.text.greet_{language}]\nmethod = 'greet'");
            let package = with(&guest("relay", language), &adds);
            let manifest = package.path().join("quadriga.toml");
            let text = fs::read_to_string(&manifest).unwrap();
            let asks = "[permissions]\napi = ['text.*']\ncall = ['app.text/*'] # ";
            fs::write(&manifest, text.replace("[permissions]\n", asks)).unwrap();
            let isolation = Some(*isolation);
            let options = LoadOptions { grant: Grant::Requested, isolation, ..LoadOptions::default() };
            host.load(package.path(), options).await.unwrap();
            packages.push(package);
        }
        for (to, _) in places() {
            let (function, expected) = (format!("greet_{to}"), format!("Hello, Ada, from {to}"));
            let said: String = host.invoke("app.text", &function, &("Ada",)).await.unwrap();
            assert_eq!(said, expected);
            for (from, _) in places() {
                let arguments = ("app.text", &function, ["Ada"]);
                let said: String = host.invoke(&format!("relay.{from}"), "relay", &arguments).await.unwrap();
                assert_eq!(said, expected, "from {from}");
            }
        }
        assert_eq!(host.apis().iter().filter(|it| it.allowed).count(), 4);
        host.unload("relay.js").await.unwrap();
        let error = host.invoke::<String>("app.text", "greet_js", &("Ada",)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownMethod);
        host.shutdown().await;
    }
}
