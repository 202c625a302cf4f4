//! What a file in a package may be called.

use std::collections::HashMap;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::bounds::Bounds;
use crate::error::{Error, Result};

/// Most bytes of one part of a path: what file systems take.
const LONGEST_PART: usize = 255;

/// Checks the raw name of an entry and returns it without the slash that folders end with.
pub(crate) fn check<'a>(raw: &'a [u8], bounds: &Bounds) -> Result<&'a str> {
    let shown = || String::from_utf8_lossy(&raw[..raw.len().min(bounds.path)]).into_owned();
    let bad = |why| Error::BadName { path: shown(), why };
    if raw.len() > bounds.path {
        let start = String::from_utf8_lossy(&raw[..bounds.path.min(40)]).into_owned();
        return Err(Error::PathTooLong { start, length: raw.len(), limit: bounds.path });
    }
    let name = std::str::from_utf8(raw).map_err(|_| bad("it is not UTF-8"))?;
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.starts_with('/') {
        return Err(Error::Escapes { path: shown() });
    }
    let mut depth = 0;
    for part in name.split('/') {
        depth += 1;
        if part == ".." {
            return Err(Error::Escapes { path: shown() });
        }
        if let Some(why) = part_problem(part) {
            return Err(bad(why));
        }
    }
    if depth > bounds.depth {
        return Err(Error::TooDeep { path: shown(), limit: bounds.depth });
    }
    if !is_nfc(name) {
        return Err(bad("it is not in Unicode's normal form C"));
    }
    Ok(name)
}

/// Why a part of a path would mean something else, or nothing, on some system.
fn part_problem(part: &str) -> Option<&'static str> {
    match part {
        "" => return Some("a part of it is empty"),
        "." => return Some("a part of it is a dot"),
        _ if part.len() > LONGEST_PART => return Some("a part of it has more than 255 bytes"),
        _ if part.ends_with(['.', ' ']) => return Some("a part of it ends with a dot or a space"),
        _ if part.starts_with(' ') => return Some("a part of it begins with a space"),
        _ => {}
    }
    part.chars().find_map(|c| match c {
        '\\' => Some("it has a backslash"),
        ':' => Some("it has a colon"),
        c if c.is_control() => Some("it has a control character"),
        // Makes a name read otherwise than it is.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            Some("it has a character that changes how text is shown")
        }
        _ => None,
    })
}

/// All names so far, as a tree: what two of them mean on a file system that ignores case and the
/// form of accents is seen here.
#[derive(Default)]
pub(crate) struct Names {
    nodes: HashMap<(u32, String), Node>,
    bytes: u64,
}

struct Node {
    id: u32,
    /// As it was first spelled.
    spelling: String,
    folder: bool,
}

impl Names {
    /// Adds a checked name, and the folders above it.
    pub(crate) fn add(&mut self, name: &str, folder: bool, bounds: &Bounds) -> Result<()> {
        let mut parent = 0;
        let mut end = 0;
        let last = name.matches('/').count();
        for (index, part) in name.split('/').enumerate() {
            end += part.len() + usize::from(index > 0);
            let (path, is_folder) = (&name[..end], folder || index < last);
            let next = self.nodes.len() as u32 + 1;
            let node = match self.nodes.entry((parent, folded(part))) {
                std::collections::hash_map::Entry::Occupied(found) => {
                    let node = found.into_mut();
                    if node.spelling != part {
                        let other = format!("{}{}", &path[..path.len() - part.len()], node.spelling);
                        return Err(Error::Collides { path: path.to_owned(), other });
                    }
                    if node.folder != is_folder {
                        return Err(Error::FileAndFolder { path: path.to_owned() });
                    }
                    if !is_folder {
                        return Err(Error::Duplicate { path: path.to_owned() });
                    }
                    node
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    if u64::from(next) > bounds.entries {
                        return Err(Error::TooManyEntries { limit: bounds.entries });
                    }
                    self.bytes += part.len() as u64;
                    free.insert(Node { id: next, spelling: part.to_owned(), folder: is_folder })
                }
            };
            parent = node.id;
        }
        if self.bytes > bounds.names {
            return Err(Error::NamesTooLong { limit: bounds.names });
        }
        Ok(())
    }
}

/// What names are compared by: up and down again, since some letters have a case of another only
/// in one direction.
fn folded(part: &str) -> String {
    part.to_uppercase().to_lowercase().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::{Names, check};
    use crate::bounds::Bounds;

    #[test]
    fn names_are_good_or_refused_by_name() {
        let deep = "a/".repeat(48) + "a";
        let long = "a".repeat(256);
        let longer = "a".repeat(1025);
        for (name, expected) in [
            ("main.py", "main.py"),
            ("vendor/ü/a b.txt", "vendor/ü/a b.txt"),
            ("folder/", "folder"),
            (".hidden", ".hidden"),
            ("...a", "...a"),
            ("日本/語", "日本/語"),
            ("", "bad_name"),
            ("/", "bad_name"),
            ("/etc/passwd", "escapes"),
            ("..", "escapes"),
            ("../a", "escapes"),
            ("a/../b", "escapes"),
            ("a/..", "escapes"),
            ("./a", "bad_name"),
            ("a//b", "bad_name"),
            ("a/./b", "bad_name"),
            ("a\\b", "bad_name"),
            ("C:a", "bad_name"),
            ("a.", "bad_name"),
            ("a /b", "bad_name"),
            (" a", "bad_name"),
            ("a\nb", "bad_name"),
            ("a\0b", "bad_name"),
            ("a\u{7f}", "bad_name"),
            ("gpj.\u{202e}exe", "bad_name"),
            ("e\u{301}", "bad_name"),
            (&deep, "too_deep"),
            (&long, "bad_name"),
            (&longer, "path_too_long"),
        ] {
            let bounds = Bounds::default();
            let found = check(name.as_bytes(), &bounds).unwrap_or_else(|error| error.code());
            assert_eq!(found, expected, "{name:?}");
        }
        assert_eq!(check(b"\xff", &Bounds::default()).unwrap_err().code(), "bad_name");
    }

    #[test]
    fn names_that_meet_on_some_file_system_are_refused() {
        for (names, expected) in [
            (&["a", "b"][..], None),
            (&["a/b", "a/c", "a/"], None),
            (&["a", "a"], Some("duplicate")),
            (&["a/b", "a/b"], Some("duplicate")),
            (&["README", "readme"], Some("collides")),
            (&["A/b", "a/c"], Some("collides")),
            (&["ſ", "s"], Some("collides")),
            (&["É/x", "é/y"], Some("collides")),
            (&["\u{212a}", "k"], Some("bad_name")),
            (&["a", "a/b"], Some("file_and_folder")),
            (&["a/b", "a"], Some("file_and_folder")),
            (&["a/", "a"], Some("file_and_folder")),
        ] {
            let (mut tree, bounds) = (Names::default(), Bounds::default());
            let result = names.iter().try_for_each(|raw| {
                let name = check(raw.as_bytes(), &bounds)?;
                tree.add(name, raw.ends_with('/'), &bounds)
            });
            assert_eq!(result.err().map(|error| error.code()), expected, "{names:?}");
        }
    }
}
