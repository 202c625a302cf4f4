//! Ed25519 signatures in the format of minisign, whose own tool verifies them:
//! <https://jedisct1.github.io/minisign/>.

mod key;
mod signature;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use key::{PublicKey, SecretKey};
pub use signature::Signature;

/// Names keys of Ed25519.
const ALGORITHM: &[u8; 2] = b"Ed";
/// Names signatures of a BLAKE2b digest of the file.
const PREHASHED: &[u8; 2] = b"ED";

const COMMENT: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// Why a key or signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SignatureError {
    #[error("this is no minisign {what}: {why}")]
    Malformed { what: &'static str, why: &'static str },
    #[error("the signature is of a form that is no longer made: it signs the file itself")]
    Legacy,
    #[error("the signature was made with the key {signature}, and not with {key}")]
    OtherKey { signature: String, key: String },
    #[error("the signature does not fit: the package was changed after it was signed")]
    WrongSignature,
    #[error("the trusted comment does not fit: it was changed after it was signed")]
    WrongComment,
    #[error("the secret key is protected by a password")]
    PasswordNeeded,
    #[error("the password does not fit the secret key")]
    WrongPassword,
    #[error("the secret key asks for more work than is sensible")]
    TooCostly,
    #[error("a comment is one line without control characters, of at most {0} bytes")]
    BadComment(usize),
    #[error("the system gave no random bytes")]
    NoRandomness,
}

impl SignatureError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed_signature",
            Self::Legacy => "legacy_signature",
            Self::OtherKey { .. } => "other_key",
            Self::WrongSignature => "wrong_signature",
            Self::WrongComment => "wrong_comment",
            Self::PasswordNeeded => "password_needed",
            Self::WrongPassword => "wrong_password",
            Self::TooCostly => "too_costly",
            Self::BadComment(_) => "bad_comment",
            Self::NoRandomness => "no_randomness",
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Malformed { .. } => {
                "signatures end with .minisig; keys come from `quadriga keygen` or minisign"
            }
            Self::Legacy => "sign it again: minisign 0.10 and newer sign a digest of the file",
            Self::OtherKey { .. } => "get the publisher's key again, or find out who signed this",
            Self::WrongSignature | Self::WrongComment => {
                "get package and signature again, and do not use these"
            }
            Self::PasswordNeeded | Self::WrongPassword => {
                "type it at the prompt, or give it in a file with --password-file"
            }
            _ => return None,
        })
    }
}

/// The bytes of a line of Base64 that are exactly as many as there should be.
fn decode<const N: usize>(what: &'static str, line: &str) -> Result<[u8; N], SignatureError> {
    let bytes = STANDARD
        .decode(line.trim_end())
        .map_err(|_| SignatureError::Malformed { what, why: "a line of it is not Base64" })?;
    bytes.try_into().map_err(|_| SignatureError::Malformed { what, why: "it is not as long as it should be" })
}

fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Keys are named by eight bytes, written as one number.
fn key_name(id: &[u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(*id))
}

#[cfg(test)]
mod tests;
