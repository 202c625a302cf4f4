use std::fmt;
use std::str::FromStr;

use super::{ALGORITHM, COMMENT, PREHASHED, SignatureError, TRUSTED, decode, encode, key_name};

/// Most bytes of a comment, and so of a line.
pub(super) const LONGEST: usize = 1024;

const WHAT: &str = "signature";

/// A signature of a file and of a comment: what a `.minisig` file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub(super) key: [u8; 8],
    /// Over the file's digest.
    pub(super) of_file: [u8; 64],
    pub(super) comment: String,
    /// Over the signature and the comment.
    pub(super) of_comment: [u8; 64],
}

impl Signature {
    /// The name of the key that it claims to be made with.
    pub fn key_id(&self) -> String {
        key_name(&self.key)
    }

    /// The comment that is signed too: to be believed once the signature was verified.
    pub fn trusted_comment(&self) -> &str {
        &self.comment
    }

    /// What the signature of the comment covers.
    pub(super) fn with_comment(of_file: &[u8; 64], comment: &str) -> Vec<u8> {
        [&of_file[..], comment.as_bytes()].concat()
    }
}

/// Whether a text is a comment that fits on its line and does nothing to terminals.
pub(super) fn is_comment(text: &str) -> bool {
    text.len() <= LONGEST && text.chars().all(|c| c == '\t' || !c.is_control())
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let malformed = |why| SignatureError::Malformed { what: WHAT, why };
        let mut lines = text.lines();
        let mut next = || lines.next().ok_or(malformed("it has too few lines"));
        let (untrusted, first) = (next()?, next()?);
        let comment =
            next()?.strip_prefix(TRUSTED).ok_or(malformed("its third line is no trusted comment"))?;
        let of_comment = decode(WHAT, next()?)?;
        if !untrusted.starts_with(COMMENT) {
            return Err(malformed("its first line is no untrusted comment"));
        }
        if lines.any(|line| !line.is_empty()) {
            return Err(malformed("it has too many lines"));
        }
        if !is_comment(comment) {
            return Err(SignatureError::BadComment(LONGEST));
        }
        let bytes: [u8; 74] = decode(WHAT, first)?;
        let (algorithm, rest) = bytes.split_at(2);
        let (key, of_file) = rest.split_at(8);
        if algorithm == ALGORITHM {
            return Err(SignatureError::Legacy);
        }
        if algorithm != PREHASHED {
            return Err(malformed("its algorithm is not known"));
        }
        let length = || malformed("it is not as long as it should be");
        Ok(Self {
            key: key.try_into().map_err(|_| length())?,
            of_file: of_file.try_into().map_err(|_| length())?,
            comment: comment.to_owned(),
            of_comment,
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = encode(&[&PREHASHED[..], &self.key, &self.of_file].concat());
        writeln!(f, "{COMMENT}signature from a Quadriga secret key")?;
        writeln!(f, "{first}")?;
        writeln!(f, "{TRUSTED}{}", self.comment)?;
        writeln!(f, "{}", encode(&self.of_comment))
    }
}
