//! Memory and permissions: what is not given cannot be taken, and what was given comes back.

use std::fs;
use std::time::Duration;

use quadriga::abi::ErrorCode;
use quadriga::abi::permission::Permissions;
use quadriga::{Effect, LoadOptions};
use quadriga_tests::{granted, guest, host};

use super::{assert_error, like, resident};

#[tokio::test]
async fn memory_is_limited_for_all_instances_together() {
    let host = host();
    let small = like(
        "wasi",
        "test.small",
        "concurrency = 2\n[limits]\nmemory = '16MiB'\n[permissions]\ncall = ['*']",
    );
    host.load(small.path(), granted()).await.unwrap();
    let held: u64 = host.invoke("test.small", "hold", &(4,)).await.unwrap();
    assert_eq!(held, 4 << 20);
    let used = host.status("test.small").unwrap().usage.memory.unwrap();
    assert!((4 << 20..16 << 20).contains(&used), "{used}");
    let error = host.invoke::<u64>("test.small", "hold", &(15,)).await.unwrap_err();
    assert_error("hold", &error, ErrorCode::MemoryLimit, &["test.small", "[limits] memory"]);
    let used = host.status("test.small").unwrap().usage.memory.unwrap();
    assert_eq!(used, 0, "the instance that went over is gone");
    let held: u64 = host.invoke("test.small", "hold", &(4,)).await.unwrap();
    assert_eq!(held, 4 << 20);
    // Each of them would fit alone.
    let error = host.invoke::<u64>("test.small", "hold_both", &(8, "test.small", 8)).await.unwrap_err();
    assert_error("hold in two", &error, ErrorCode::MemoryLimit, &[]);
    let held: u64 = host.invoke("test.small", "hold_both", &(4, "test.small", 4)).await.unwrap();
    assert_eq!(held, 8 << 20);

    let tiny = like("wasi", "test.tiny", "[limits]\nmemory = '64KiB'");
    let error = host.load(tiny.path(), granted()).await.unwrap_err();
    assert_error("tiny", &error, ErrorCode::MemoryLimit, &["65536"]);
}

#[tokio::test]
async fn nothing_is_there_that_was_not_granted() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let path = outside.path().join("secret").to_string_lossy().into_owned();
    let asks = "[permissions]\ncall = ['*']\nenv = ['PATH']\n\
                fs = [{ path = 'data', mode = 'ro' }, { path = 'scratch', mode = 'rw' }]";
    let package = like("wasi", "test.files", asks);
    for folder in ["data", "scratch", "other"] {
        fs::create_dir(package.path().join(folder)).unwrap();
        fs::write(package.path().join(folder).join("file"), folder).unwrap();
    }
    let host = host();
    let read = async |path: &str| host.invoke::<String>("test.files", "read", &(path,)).await;
    let write = async |path: &str| host.invoke::<()>("test.files", "write", &(path, "new")).await;
    let env = async |name: &str| host.invoke::<Option<String>>("test.files", "env", &(name,)).await.unwrap();

    host.load(package.path(), granted()).await.unwrap();
    assert_eq!(read("data/file").await.unwrap(), "data");
    assert_eq!(read("scratch/file").await.unwrap(), "scratch");
    write("scratch/file").await.unwrap();
    assert_eq!(fs::read_to_string(package.path().join("scratch/file")).unwrap(), "new");
    write("data/file").await.unwrap_err();
    for denied in ["other/file", "quadriga.toml", "data/../other/file", "/etc/hostname", &path] {
        read(denied).await.expect_err(denied);
    }
    assert_eq!(env("PATH").await, std::env::var("PATH").ok());
    assert_eq!(env("HOME").await, None);
    host.unload("test.files").await.unwrap();

    host.load(package.path(), LoadOptions::default()).await.unwrap();
    read("data/file").await.unwrap_err();
    assert_eq!(env("PATH").await, None);
    host.unload("test.files").await.unwrap();

    let file = like("wasi", "test.files", "[permissions]\nfs = [{ path = 'quadriga.toml', mode = 'ro' }]");
    let error = host.load(file.path(), granted()).await.unwrap_err();
    assert_error("a file", &error, ErrorCode::Unsupported, &["quadriga.toml", "folder"]);
}

/// What was granted is taken back from instances that have it: from the next operation on.
#[tokio::test(flavor = "multi_thread")]
async fn folders_and_variables_are_revoked_while_they_are_used() {
    let asks = "concurrency = 2\n[permissions]\nenv = ['PATH']\nfs = [{ path = 'data', mode = 'ro' }]";
    let package = like("wasi", "test.files", asks);
    fs::create_dir(package.path().join("data")).unwrap();
    fs::write(package.path().join("data/file"), "data").unwrap();
    let host = host();
    host.load(package.path(), granted()).await.unwrap();
    let read = async || host.invoke::<String>("test.files", "read", &("data/file",)).await;
    assert_eq!(read().await.unwrap(), "data");
    let sleeper = {
        let host = host.clone();
        tokio::spawn(async move { host.invoke::<u64>("test.files", "sleep", &(20_000,)).await })
    };
    while host.usage("test.files").unwrap().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = host.permissions("test.files").unwrap();
    let folder = Permissions { fs: all.fs.clone(), ..Permissions::default() };
    assert_eq!(host.revoke("test.files", &folder).unwrap(), Effect::Now);
    // It could go on to use the folder: so it does not go on.
    let error = sleeper.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
    read().await.unwrap_err();
    let path: Option<String> = host.invoke("test.files", "env", &("PATH",)).await.unwrap();
    assert_eq!(path, std::env::var("PATH").ok());
    let variable = Permissions { env: all.env.clone(), ..Permissions::default() };
    assert_eq!(host.revoke("test.files", &variable).unwrap(), Effect::Now);
    assert_eq!(host.invoke::<Option<String>>("test.files", "env", &("PATH",)).await.unwrap(), None);
    // What is there gets nothing more; the next does.
    assert_eq!(host.grant("test.files", &folder).unwrap(), Effect::AfterReload);
    read().await.unwrap_err();
    host.reload("test.files").await.unwrap();
    assert_eq!(read().await.unwrap(), "data");
}

/// The threads of the runtime: its clock.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // It may end while we look.
        fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    tasks.filter(|name| name.starts_with("quadriga-wasm")).count()
}

#[tokio::test]
async fn unload_gives_back_memory_and_threads() {
    // It looks at the whole process, so it must have it for itself.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    let host = host();
    let mut first = None;
    for _ in 0..20 {
        assert_eq!(threads(), 0);
        host.load(guest("wasi", "wasm"), granted()).await.unwrap();
        // It gets its name when it first runs.
        while threads() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(host.invoke::<u64>("test.wasi", "hold", &(16,)).await.unwrap(), 16 << 20);
        host.unload("test.wasi").await.unwrap();
        // What the first load makes stays with the host: the engine and its compiler's threads.
        first.get_or_insert_with(resident);
    }
    assert_eq!(threads(), 0);
    let grown = resident().saturating_sub(first.unwrap());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kinds: Vec<_> = status.lines().filter(|line| line.starts_with("Rss")).collect();
    assert!(grown < 16 << 20, "{grown} bytes more after 20 rounds of 16 MiB: {kinds:?}");
}
