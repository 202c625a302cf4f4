//! What is shown at a terminal, and nowhere else.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::cli::command;
use crate::manage::Place;

/// Runs a command whose standard error is a terminal, and gives what that showed.
fn at_a_terminal(place: &Place, args: &[&str]) -> String {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let theirs = File::options().read(true).write(true).open(path).unwrap();
    let mut command = command();
    command.current_dir(place.0.path()).env("QUADRIGA_HOME", place.home()).env("TERM", "xterm").args(args);
    command.env_remove("NO_COLOR").stdin(Stdio::null()).stdout(Stdio::null()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    // Our copy of its end.
    drop(command);
    let (mut shown, mut ours) = (Vec::new(), File::from(ours));
    // It ends with an error once nobody has the other end any more.
    let _ = ours.read_to_end(&mut shown);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&shown));
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn long_work_shows_how_far_it_is_at_a_terminal_alone() {
    let place = Place::new();
    let folder = place.0.path().join("large");
    fs::create_dir(&folder).unwrap();
    let manifest = "[extension]\nid = 'test.large'\nversion = '1.0.0'\n[runtime]\nkind = 'javascript'\nentry = 'main.js'\n";
    fs::write(folder.join("quadriga.toml"), manifest).unwrap();
    fs::write(folder.join("main.js"), "export const large = () => 1;\n").unwrap();
    for name in ["one", "two", "three"] {
        fs::write(folder.join(name), vec![b'x'; 4 << 20]).unwrap();
    }
    for (args, what) in [
        (&["pack", "large", "--out", "shown.qx"][..], "packing"),
        (&["install", "shown.qx"], "unpacking"),
        (&["backup", "backups"], "copying"),
    ] {
        let shown = at_a_terminal(&place, args);
        // A bar, what it is about, and bytes of how many.
        let is_bar =
            |line: &str| line.contains(what) && line.contains("/12.00 MiB") && line.contains(['█', '░']);
        assert!(shown.split(['\r', '\n']).any(is_bar), "{args:?}: {shown:?}");
        // It is taken away in the end.
        assert!(shown.ends_with("\r\x1b[2K"), "{args:?}: {shown:?}");
    }
    let quiet = [
        &["pack", "large", "--out", "piped.qx"][..],
        &["uninstall", "test.large"],
        &["install", "piped.qx"],
        &["backup", "backups"],
    ];
    for args in quiet {
        let (code, _, said) = place.run(args);
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains(['\r', '\x1b', '█', '░']) && !said.contains("ing "), "{args:?}: {said:?}");
    }
    let shown = at_a_terminal(&place, &["backup", "backups", "--json"]);
    assert!(shown.is_empty(), "{shown:?}");
}
