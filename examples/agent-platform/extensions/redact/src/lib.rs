//! Writes names in one way, and masks contacts.

#[quadriga_sdk::extension]
mod redact {
    use serde::{Deserialize, Serialize};
    use unicode_normalization::UnicodeNormalization as _;

    /// Who joins.
    #[derive(Deserialize)]
    pub struct Joined {
        name: String,
        contact: String,
    }

    /// What is changed of it.
    #[derive(Serialize)]
    pub struct Patch {
        name: String,
        contact: String,
    }

    /// Composes the letters of the name (Unicode's form C) and leaves one blank between its parts; of
    /// the contact, the first letter and the domain stay.
    pub fn tidy(joined: Joined) -> Patch {
        let composed: String = joined.name.nfc().collect();
        let name = composed.split_whitespace().collect::<Vec<_>>().join(" ");
        Patch { name, contact: masked(&joined.contact) }
    }

    fn masked(contact: &str) -> String {
        let first: String = contact.chars().take(1).collect();
        match contact.rsplit_once('@') {
            Some((_, domain)) => format!("{first}…@{domain}"),
            None => format!("{first}…"),
        }
    }
}
