//! State that an extension hands to the next one at a reload.

use quadriga::abi::{ErrorCode, Value};
use quadriga_tests::{granted, guest, host};

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

#[tokio::test]
async fn a_reload_keeps_the_state() {
    let host = host();
    for language in LANGUAGES {
        let id = format!("counter.{language}");
        host.load(guest("counter", language), granted()).await.expect(language);
        let add = async |n: i64| host.invoke::<i64>(&id, "add", &(n,)).await.unwrap();
        assert_eq!(add(3).await, 3, "{language}");
        let generation = host.status(&id).unwrap().generation;
        host.reload(&id).await.expect(language);
        assert!(host.status(&id).unwrap().generation > generation, "{language}");
        assert_eq!(add(1).await, 4, "{language}: the count goes on");

        // What the next one refuses leaves the old one where it is.
        assert_eq!(add(-5).await, -1, "{language}");
        let error = host.reload(&id).await.expect_err(language);
        assert!(error.message.contains("not negative"), "{language}: {error:?}");
        assert_eq!(error.extension.as_deref(), Some(id.as_str()), "{language}");
        assert_eq!(add(6).await, 5, "{language}: the old one serves on");
        host.reload(&id).await.expect(language);
        assert_eq!(add(0).await, 5, "{language}");

        // A load from nothing has no state.
        host.unload(&id).await.unwrap();
        host.load(guest("counter", language), granted()).await.expect(language);
        assert_eq!(add(0).await, 0, "{language}");
    }
}

#[tokio::test]
async fn the_state_is_for_the_host_alone() {
    let host = host();
    host.load(guest("relay", "js"), granted()).await.unwrap();
    for language in LANGUAGES {
        let id = format!("counter.{language}");
        host.load(guest("counter", language), granted()).await.expect(language);
        for (method, arguments) in [("snapshot", vec![]), ("restore", vec![7])] {
            let call = (&id, method, arguments);
            let error = host.invoke::<Value>("relay.js", "relay", &call).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{language}: {error:?}");
        }
        let count: i64 = host.invoke(&id, "snapshot", &()).await.unwrap();
        assert_eq!(count, 0, "{language}");
    }
}
