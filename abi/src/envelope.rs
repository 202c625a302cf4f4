use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::{ExtensionId, ProtocolVersion, TraceContext};

/// The one message of the contract. In one process it is handed over as it is; between processes
/// it is a frame ([`Envelope::encode`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// What the message is for.
    pub kind: Kind,
    /// Names the call on this connection; replies carry the id of their call.
    pub id: u64,
    /// The extension that sent it; none for the host itself.
    pub source: Option<ExtensionId>,
    /// The extension and method that it is for; none for messages about the connection.
    pub target: Option<Arc<Target>>,
    /// How many extensions stand above this call; 0 for a call by the host.
    pub depth: u16,
    /// When the sender stops waiting.
    pub deadline: Option<Instant>,
    /// Where in a distributed trace this belongs.
    pub trace: Option<TraceContext>,
    /// MessagePack: a list of arguments for a call, one value for a reply.
    pub payload: Bytes,
}

/// What an [`Envelope`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Version and features, first on every connection; the payload is a description.
    Hello,
    /// Asks for a method.
    Call,
    /// Answers a call.
    Reply,
    /// Answers a call with an error.
    Error,
    /// Says that something happened: a call for which nobody waits.
    Event,
    /// Asks for an answer to a hook.
    Hook,
    /// Asks for a host function.
    HostCall,
    /// Answers a host call.
    HostReply,
    /// A part of a stream.
    StreamData,
    /// Lets the sender of a stream go on.
    StreamAck,
    /// The end of a stream.
    StreamEnd,
    /// The caller no longer waits.
    Cancel,
    /// A line for the log.
    Log,
    /// What the extension may do from now on.
    Permissions,
    /// What the extension may use up from now on.
    Limits,
    /// Asks for a sign of life.
    Ping,
    /// Asks to finish and go.
    Shutdown,
    /// A kind of a newer contract, to be skipped.
    #[serde(other)]
    Unknown,
}

/// The extension and method that an [`Envelope`] is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The extension's id.
    pub extension: ExtensionId,
    /// The method's name.
    pub method: Arc<str>,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The header is not what it should be.
    #[error("the frame's header cannot be decoded")]
    Header(#[source] rmp_serde::decode::Error),
    /// The payload is shorter or longer than the header says.
    #[error("the frame has {actual} bytes of payload where its header says {expected}")]
    Length {
        /// Bytes by the header.
        expected: u64,
        /// Bytes after the header.
        actual: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: ProtocolVersion,
    kind: Kind,
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<ExtensionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Arc<Target>>,
    #[serde(default)]
    depth: u16,
    /// Microseconds that were left when the frame was written: clocks need not agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<(u64, u64, NonZeroU64, u8)>,
    payload: u64,
}

impl Envelope {
    /// A message without source, target, deadline or trace.
    pub fn new(kind: Kind, id: u64, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self { kind, id, source: None, target: None, depth: 0, deadline: None, trace: None, payload }
    }

    /// Writes a frame: the header as a MessagePack map, then the payload as it is.
    pub fn encode(&self, out: &mut impl BufMut) {
        self.encode_header(out);
        out.put_slice(&self.payload);
    }

    /// Writes all of a frame but its payload, for senders that send that from where it is.
    pub fn encode_header(&self, out: &mut impl BufMut) {
        let remaining = |deadline: Instant| {
            let left = deadline.saturating_duration_since(Instant::now());
            u64::try_from(left.as_micros()).unwrap_or(u64::MAX)
        };
        let split = |TraceContext { trace_id, span_id, flags }| {
            let trace_id = u128::from_be_bytes(trace_id);
            ((trace_id >> 64) as u64, trace_id as u64, span_id, flags)
        };
        let header = Header {
            version: crate::PROTOCOL,
            kind: self.kind,
            id: self.id,
            source: self.source.clone(),
            target: self.target.clone(),
            depth: self.depth,
            remaining: self.deadline.map(remaining),
            trace: self.trace.map(split),
            payload: self.payload.len() as u64,
        };
        // Encoding a struct of numbers and texts into memory cannot fail.
        let _ = rmp_serde::encode::write_named(&mut out.writer(), &header);
    }

    /// Reads a frame. The payload shares the frame's memory. Unknown fields are skipped.
    pub fn decode(frame: Bytes) -> Result<Self, FrameError> {
        let mut rest = &frame[..];
        let mut decoder = rmp_serde::Deserializer::new(&mut rest);
        let header = Header::deserialize(&mut decoder).map_err(FrameError::Header)?;
        let payload = frame.slice(frame.len() - rest.len()..);
        if payload.len() as u64 != header.payload {
            let actual = payload.len() as u64;
            return Err(FrameError::Length { expected: header.payload, actual });
        }
        let deadline = header.remaining.and_then(|us| Instant::now().checked_add(Duration::from_micros(us)));
        let trace = header.trace.map(|(high, low, span_id, flags)| {
            let trace_id = u128::from(high) << 64 | u128::from(low);
            TraceContext { trace_id: trace_id.to_be_bytes(), span_id, flags }
        });
        let Header { kind, id, source, target, depth, .. } = header;
        Ok(Self { kind, id, source, target, depth, deadline, trace, payload })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(envelope: &Envelope) -> Bytes {
        let mut out = Vec::new();
        envelope.encode(&mut out);
        out.into()
    }

    #[test]
    fn round_trip() {
        let mut envelope = Envelope::new(Kind::Call, 7, Bytes::from_static(b"\x91\x01"));
        envelope.source = Some("a.b".parse().unwrap());
        let target = Target { extension: "c.d".parse().unwrap(), method: "run".into() };
        envelope.target = Some(Arc::new(target));
        envelope.depth = 3;
        envelope.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        assert_eq!(Envelope::decode(frame(&envelope)).unwrap(), envelope);
    }

    #[test]
    fn deadline_travels_as_what_is_left() {
        let mut envelope = Envelope::new(Kind::Call, 1, Bytes::new());
        envelope.deadline = Some(Instant::now() + Duration::from_secs(60));
        let left = Envelope::decode(frame(&envelope)).unwrap().deadline.unwrap() - Instant::now();
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
    }

    #[test]
    fn newer_kinds_and_fields_are_skipped() {
        let header = serde_json::json!({
            "version": "0.9.0", "kind": "teleport", "id": 1, "payload": 0, "colour": { "deep": [1] },
        });
        let frame = rmp_serde::to_vec_named(&header).unwrap();
        assert_eq!(Envelope::decode(frame.into()).unwrap().kind, Kind::Unknown);
    }

    #[test]
    fn wrong_length_is_refused() {
        let mut bytes = frame(&Envelope::new(Kind::Ping, 1, Bytes::from_static(b"abc"))).to_vec();
        bytes.pop();
        let error = Envelope::decode(bytes.into()).unwrap_err();
        assert!(matches!(error, FrameError::Length { expected: 3, actual: 2 }), "{error:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Envelope::decode(bytes.into());
        }
    }
}
