//! Homes are copied, and made again.

use super::*;
use crate::home::{Backup, Progress};

/// A home with three extensions, of which one was updated and one can be run.
async fn busy(folder: &Path) -> Home {
    let home = Home::open(folder.join("home")).await.unwrap();
    for (id, version) in [("a.a", "1.0.0"), ("a.b", "1.0.0"), ("a.c", "1.0.0")] {
        install(&home, &package(folder, id, version, "[permissions]\nkv = true")).await.unwrap();
    }
    update(&home, &package(folder, "a.a", "2.0.0", "")).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    home.configure("a.b", settings(serde_json::json!({ "x": 1 })), &[], ME).await.unwrap();
    home
}

#[tokio::test]
async fn a_backup_is_the_home_as_it_was() {
    let folder = TempDir::new().unwrap();
    let (backups, again) = (folder.path().join("backups"), folder.path().join("again"));
    // Somebody works with it.
    let home = busy(folder.path()).await;
    let before = state(&home).await;
    let trail = home.verify_audit(None).await.unwrap();
    let backup = Backup::make(home.path(), &backups, &Progress::default()).await.unwrap();
    let versions: Vec<String> = backup.extensions.iter().map(|(id, it)| format!("{id} {it}")).collect();
    assert_eq!(versions, ["a.a 2.0.0", "a.b 1.0.0", "a.c 1.0.0"]);
    assert_eq!(backup.audit_head, trail.head);
    // What comes afterwards is not in it.
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    home.uninstall("a.a", Dependents::Refuse, ME).await.unwrap();
    assert_eq!(Backup::list(&backups).unwrap(), std::slice::from_ref(&backup));
    fs::create_dir(&again).unwrap();
    backup.restore(&again, &Progress::default()).await.unwrap();
    let restored = Home::open(&again).await.unwrap();
    let place = |text: String| text.replace(again.to_str().unwrap(), home.path().to_str().unwrap());
    let after: Vec<String> = state(&restored).await.into_iter().map(place).collect();
    assert_eq!(after, before);
    nothing_else(&restored).await;
    assert_eq!(restored.verify_audit(Some(&trail.head)).await.unwrap(), trail);
    restored.rollback("a.a", Dependents::Refuse, ME).await.unwrap();
    // Nothing is put over what is there.
    let error = backup.restore(&again, &Progress::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error}");
    let nowhere = Backup::make(&backups, &backups, &Progress::default()).await.unwrap_err();
    assert_eq!(nowhere.code, ErrorCode::NotInstalled, "{nowhere}");
}

#[tokio::test]
async fn what_was_changed_is_not_restored() {
    let folder = TempDir::new().unwrap();
    let home = busy(folder.path()).await;
    let backup = Backup::make(home.path(), folder.path(), &Progress::default()).await.unwrap();
    let file = backup.files.keys().find(|path| path.ends_with("/main")).unwrap().clone();
    let edit = |about: &str, from: &str, to: &str| about.replacen(from, to, 1);
    let size = format!("\"size\": {}", backup.files[&file].size);
    let (head, other) = (backup.audit_head.clone(), "0".repeat(64));
    type Edit<'a> = Box<dyn Fn(&Path) + 'a>;
    let about = |from: String, to: String| -> Edit<'_> {
        Box::new(move |path| {
            let path = path.join("backup.json");
            let text = fs::read_to_string(&path).unwrap();
            assert_ne!(edit(&text, &from, &to), text, "{from}");
            fs::write(path, edit(&text, &from, &to)).unwrap();
        })
    };
    let cases: [(&str, Edit<'_>); 9] = [
        ("main is not what was backed up", Box::new(|path| fs::write(path.join(&file), "x").unwrap())),
        ("main is missing", Box::new(|path| fs::remove_file(path.join(&file)).unwrap())),
        (
            "packages/x does not belong there",
            Box::new(|path| fs::write(path.join("packages/x"), "").unwrap()),
        ),
        (
            "main is a link",
            Box::new(|path| {
                fs::remove_file(path.join(&file)).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", path.join(&file)).unwrap();
            }),
        ),
        ("backup.json: ", Box::new(|path| fs::remove_file(path.join("backup.json")).unwrap())),
        ("is not what was backed up", about(size, "\"size\": 7".to_owned())),
        ("../../x is missing", about(format!("\"{file}\""), "\"../../x\"".to_owned())),
        ("store.sqlite is not what backup.json says", about(head, other)),
        ("store.sqlite is not what backup.json says", about("\"2.0.0\"".to_owned(), "\"2.0.1\"".to_owned())),
    ];
    for (n, (says, change)) in cases.iter().enumerate() {
        let (path, to) = (folder.path().join(format!("copy-{n}")), folder.path().join("to"));
        copy(&backup.path, &path);
        change(&path);
        let restored = match Backup::read(&path) {
            Ok(backup) => backup.restore(&to, &Progress::default()).await,
            Err(error) => Err(error),
        };
        let error = restored.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidBackup, "{error}");
        // "../../x" takes the place of a file, which then does not belong there.
        assert!(error.message.contains(says) || n == 6 && error.message.contains("belong"), "{n}: {error}");
        assert!(!to.exists(), "{n}");
    }
    let left: Vec<PathBuf> = entries(folder.path()).unwrap();
    assert!(
        left.iter().all(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')),
        "{left:?}"
    );
}

#[tokio::test]
async fn the_newest_are_kept() {
    let folder = TempDir::new().unwrap();
    let backups = folder.path().join("backups");
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(Backup::make(home.path(), &backups, &Progress::default()).await.unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    // These are none, and stay.
    fs::create_dir(backups.join("else")).unwrap();
    fs::create_dir(backups.join(".unfinished-1")).unwrap();
    assert_eq!(Backup::list(&backups).unwrap(), made);
    assert_eq!(Backup::retain(&backups, 3).unwrap(), made[..1]);
    assert_eq!(Backup::retain(&backups, 3).unwrap(), []);
    assert_eq!(Backup::list(&backups).unwrap(), made[1..]);
    assert!(!made[0].path.exists() && backups.join("else").exists());
    assert_eq!(Backup::retain(&backups, 0).unwrap(), made[1..]);
}

/// Whatever is done to the home meanwhile, each backup is whole.
#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_while_the_home_changes() {
    let folder = TempDir::new().unwrap();
    let home = busy(folder.path()).await;
    let d = package(folder.path(), "a.d", "1.0.0", "");
    let path = home.path().to_owned();
    let changing = tokio::spawn(async move {
        for _ in 0..30 {
            install(&home, &d).await.unwrap();
            home.uninstall("a.d", Dependents::Refuse, ME).await.unwrap();
        }
    });
    let mut made = 0;
    while !changing.is_finished() {
        let backup = match Backup::make(&path, &folder.path().join("backups"), &Progress::default()).await {
            Ok(backup) => backup,
            // It may be unlucky ten times in a row.
            Err(error) => {
                assert_eq!(error.code, ErrorCode::HomeInUse, "{error}");
                continue;
            }
        };
        let to = folder.path().join(format!("to-{made}"));
        backup.restore(&to, &Progress::default()).await.unwrap();
        let restored = Home::open(to).await.unwrap();
        nothing_else(&restored).await;
        restored.close().await;
        made += 1;
    }
    changing.await.unwrap();
    assert!(made > 0);
}

/// What a progress was told: what of, how much at last, and of how much; it only grows.
type Heard = Arc<std::sync::Mutex<Vec<(&'static str, u64, Option<u64>)>>>;

fn heard() -> (Progress, Heard) {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let progress = Progress::new(move |what, done, of| {
        let mut heard = told.lock().unwrap();
        match heard.last_mut().filter(|last| last.0 == what && last.2 == of && last.1 <= done) {
            Some(last) => last.1 = done,
            None => heard.push((what, done, of)),
        }
    });
    (progress, heard)
}

#[tokio::test]
async fn long_operations_tell_how_far_they_are() {
    let folder = TempDir::new().unwrap();
    let [one, two] = ["1.0.0", "2.0.0"].map(|version| package(folder.path(), "a.b", version, ""));
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let size = |path: &Path| open(path).unpacked_size().unwrap();
    let (progress, told) = heard();
    let options = InstallOptions { progress, ..options() };
    home.install(offer(&one), options.clone()).await.unwrap();
    home.update(offer(&two), options).await.unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(
        told.iter().map(|it| (it.0, it.2)).collect::<Vec<_>>(),
        [("unpacking", Some(size(&one))), ("unpacking", Some(size(&two))),]
    );
    assert!(told.iter().all(|(_, done, of)| *done >= of.unwrap()), "{told:?}");
    let (progress, told) = heard();
    let backup = Backup::make(home.path(), &folder.path().join("backups"), &progress).await.unwrap();
    backup.restore(&folder.path().join("again"), &progress).await.unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    let whats: Vec<&str> = told.iter().map(|it| it.0).collect();
    assert_eq!(whats, ["copying", "digesting", "verifying", "restoring"]);
    assert!(told.iter().all(|(_, done, of)| Some(*done) == *of), "{told:?}");
    assert_eq!(told[3].1, backup.size());
}
