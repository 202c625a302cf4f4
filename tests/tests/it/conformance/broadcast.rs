//! Calls of many extensions at once.

use quadriga::abi::{ErrorCode, Value};
use quadriga::{BroadcastFilter, BroadcastOptions};
use quadriga_tests::with;

use super::subject::{Subject, host};

/// What an extension answered: its id, its value, its code.
type Answered = (String, Option<Value>, Option<String>);

pub(super) async fn reaches_all_that_it_is_for(subject: &Subject) {
    let host = host();
    subject.load(&host, "relay").await;
    subject.load(&host, "flow").await;
    let tagged = with(&subject.package("counter"), "[capabilities]\nprovides = ['tally@1.2.0']");
    let manifest = tagged.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("[runtime]", "tags = ['counts']\n\n[runtime]")).unwrap();
    host.load(tagged.path(), subject.options()).await.unwrap();
    let (relay, counter, flow) = (subject.guest("relay"), subject.guest("counter"), subject.guest("flow"));
    let broadcast = async |tag: Option<&str>, method: &str, args: &[i64]| {
        host.invoke::<Vec<Answered>>(&relay, "broadcast", &(tag, method, args)).await
    };
    let counted = |n: i64| (counter.clone(), Some(Value::Int(n)), None);
    assert_eq!(broadcast(Some("counts"), "add", &[2]).await.unwrap(), [counted(2)]);
    assert_eq!(broadcast(Some("other"), "add", &[2]).await.unwrap(), []);
    // Never the one that asks, though it has the method; and who lacks it says so.
    let lacks = (flow.clone(), None, Some("unknown_method".to_owned()));
    assert_eq!(broadcast(None, "add", &[3]).await.unwrap(), [counted(5), lacks]);
    // The state is for the host alone.
    let error = broadcast(None, "snapshot", &[]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
    let provides = Some("tally@^1.1".to_owned());
    let filter = BroadcastFilter { provides, ..BroadcastFilter::default() };
    let answers =
        host.broadcast(&filter, "snapshot", &[0x90][..], BroadcastOptions::default()).await.unwrap();
    assert_eq!((answers.len(), answers[0].extension.as_str()), (1, counter.as_str()));
    assert_eq!(Value::from_bytes(answers[0].result.as_ref().unwrap()).unwrap(), Value::Int(5));
}
