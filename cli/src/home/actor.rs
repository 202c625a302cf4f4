//! Who does something, for the audit trail: the user that the system says it is.

/// The user of this process.
#[cfg(unix)]
pub(crate) fn actor() -> String {
    user(nix::unistd::Uid::current())
}

/// The name of a user, or else the number.
#[cfg(unix)]
pub(crate) fn user(uid: nix::unistd::Uid) -> String {
    let found = nix::unistd::User::from_uid(uid).ok().flatten();
    found.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// The user of this process, as the environment says.
#[cfg(not(unix))]
pub(crate) fn actor() -> String {
    std::env::var("USERNAME").unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use nix::unistd::Uid;

    #[test]
    fn users_have_names_or_numbers() {
        assert_eq!(super::user(Uid::from_raw(0)), "root");
        assert_eq!(super::user(Uid::from_raw(4_000_000_001)), "uid 4000000001");
    }
}
