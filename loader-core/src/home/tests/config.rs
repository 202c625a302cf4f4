//! Settings that a home keeps.

use serde_json::json;

use super::*;

const SCHEMA: &str = "
[config.schema]
required = ['language', 'key']
[config.schema.properties]
language = { type = 'string' }
most = { type = 'integer', default = 10 }
key = { writeOnly = true }
";

#[tokio::test]
async fn settings_are_kept_as_long_as_the_version_takes_them() {
    let folder = TempDir::new().unwrap();
    let one = package(folder.path(), "a.b", "1.0.0", SCHEMA);
    let two = package(folder.path(), "a.b", "2.0.0", &SCHEMA.replace("'integer', default = 10", "'string'"));
    let path = folder.path().join("home");
    let home = Home::open(&path).await.unwrap();
    assert!(install(&home, &one).await.unwrap().config.is_empty());
    let configure = async |set, unset: &[&str]| {
        let unset: Vec<String> = unset.iter().map(|&name| name.to_owned()).collect();
        home.configure("a.b", settings(set), &unset, ME).await.map(|it| json!(it.config))
    };
    let refused = [json!({ "most": "x" }), json!({ "key": "hunter2" })];
    for set in refused {
        let error = configure(set, &[]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig, "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    // What is required may come from elsewhere.
    let kept = configure(json!({ "most": 5 }), &[]).await.unwrap();
    assert_eq!(kept, json!({ "most": 5 }));
    let kept = configure(json!({ "language": "de", "key": { "secret": "k" } }), &["none"]).await.unwrap();
    assert_eq!(kept, json!({ "most": 5, "language": "de", "key": { "secret": "k" } }));
    // A version that does not take them does not come.
    let error = update(&home, &two).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfig, "{error}");
    configure(json!({}), &["most"]).await.unwrap();
    let updated = update(&home, &two).await.unwrap().installed;
    assert_eq!(json!(updated.config), json!({ "language": "de", "key": { "secret": "k" } }));
    // Nor does it come back.
    configure(json!({ "most": "five" }), &[]).await.unwrap();
    let error = home.rollback("a.b", Dependents::Refuse, ME).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfig, "{error}");
    // The trail has their names.
    let trail = home.audit().await.unwrap();
    let last = trail.last().unwrap();
    assert_eq!((&*last.action, &last.detail), ("configure", &json!({ "set": ["most"], "unset": [] })));
    home.close().await;
    let kept = Home::look_at(&path, "a.b").await.unwrap().config;
    assert_eq!(json!(kept)["most"], "five");
}

#[tokio::test]
async fn a_home_of_before_there_were_settings_is_brought_up_to_date() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path()).await.unwrap();
    install(&home, &package(folder.path(), "a.b", "1.0.0", SCHEMA)).await.unwrap();
    let before = state(&home).await;
    let undo = "
        ALTER TABLE extension DROP COLUMN config;
        ALTER TABLE extension DROP COLUMN pinned;
        ALTER TABLE version DROP COLUMN key;
        ALTER TABLE version DROP COLUMN once;
        ALTER TABLE version DROP COLUMN signed_at;
        DROP TABLE trusted;
        DROP TABLE terms;
        DROP TABLE license_policy;
        DROP TABLE leaving;
        PRAGMA user_version = 1";
    sqlx::raw_sql(undo).execute(&mut *home.connection().await.unwrap()).await.unwrap();
    home.close().await;
    let home = Home::open(folder.path()).await.unwrap();
    assert_eq!(state(&home).await, before);
}
