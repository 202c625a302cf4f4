use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in a distributed trace: <https://www.w3.org/TR/trace-context/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// `trace-id`, never all zero.
    pub trace_id: [u8; 16],
    /// `parent-id`.
    pub span_id: NonZeroU64,
    /// `trace-flags`; bit 0 says that the caller records.
    pub flags: u8,
}

/// Why a text is no [`TraceContext`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a traceparent: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, none of the ids zero"
)]
pub struct TraceError;

impl TraceContext {
    /// The same trace, seen from a further span.
    pub fn child(self, span_id: NonZeroU64) -> Self {
        Self { span_id, ..self }
    }
}

/// As the header `traceparent` has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        write!(f, "00-{trace_id:032x}-{:016x}-{:02x}", self.span_id, self.flags)
    }
}

/// Reads the header `traceparent`, of version 00 or later.
impl FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let mut parts = text.split('-');
        let version = hex(parts.next(), 2)?;
        let trace_id = hex(parts.next(), 32)?;
        // Within 16 and 2 digits, so nothing is cut off.
        let span_id = NonZeroU64::new(hex(parts.next(), 16)? as u64).ok_or(TraceError)?;
        let flags = hex(parts.next(), 2)? as u8;
        let valid = version != 0xff && trace_id != 0;
        // Later versions may append; this one has nothing more.
        if valid && (version > 0 || parts.next().is_none()) {
            Ok(Self { trace_id: trace_id.to_be_bytes(), span_id, flags })
        } else {
            Err(TraceError)
        }
    }
}

fn hex(part: Option<&str>, digits: usize) -> Result<u128, TraceError> {
    let part = part.filter(|part| part.len() == digits).ok_or(TraceError)?;
    if part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        u128::from_str_radix(part, 16).map_err(|_| TraceError)
    } else {
        Err(TraceError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_by_the_recommendation() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let cases = [
            (good, true),
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-holds", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false),
            ("", false),
        ];
        for (text, fits) in cases {
            assert_eq!(text.parse::<TraceContext>().is_ok(), fits, "{text}");
        }
        assert_eq!(good.parse::<TraceContext>().unwrap().to_string(), good);
    }
}
