use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// What went wrong, as a stable name that every language sees alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// An extension of this id is installed already.
    AlreadyInstalled,
    /// An extension of this id is loaded already.
    AlreadyLoaded,
    /// A function of a host's API is there already: the host's own, or another extension's.
    ApiConflict,
    /// Extensions called each other deeper than the limit allows.
    CallDepthExceeded,
    /// The caller gave up.
    Cancelled,
    /// The extension does not take the settings that it was to go on with.
    ConfigRefused,
    /// A host of the network could not be reached, or the connection to it broke.
    ConnectionFailed,
    /// Somebody has to agree to what an update would change.
    ConsentRequired,
    /// The call used more processor time than its limit allows.
    CpuLimit,
    /// The call or load took longer than it was given.
    DeadlineExceeded,
    /// Extensions need each other in a circle.
    DependencyCycle,
    /// The manifest's entry is missing or cannot be read as what it should be.
    EntryInvalid,
    /// The extension's own code failed: an exception, or an `Err`.
    ExtensionError,
    /// The extension ended without a reply, together with its instance.
    ExtensionCrashed,
    /// The extension panicked or trapped; other calls to it go on.
    ExtensionPanicked,
    /// The extension was paused by its host.
    ExtensionPaused,
    /// The extension was put in quarantine: it takes no calls until its host resumes it.
    ExtensionQuarantined,
    /// The extension was unloaded, or ended by itself, before the call could start.
    ExtensionStopped,
    /// Two handlers of a hook changed one field, and the host wants that to be an error.
    HookConflict,
    /// A handler of a hook failed, and it fails closed.
    HookFailed,
    /// A handler of a hook led to the same hook.
    HookRecursion,
    /// A handler of a hook objected.
    HookVetoed,
    /// Another process works with the home.
    HomeInUse,
    /// No host runs the home.
    HostNotRunning,
    /// Two parts were built for contracts that do not fit.
    IncompatibleVersion,
    /// A bug in Quadriga itself.
    Internal,
    /// The arguments do not fit the method.
    InvalidArguments,
    /// A backup is damaged, or was changed.
    InvalidBackup,
    /// Settings do not fit the extension's schema.
    InvalidConfig,
    /// The manifest breaks a rule.
    InvalidManifest,
    /// A package is damaged, unsafe, or not signed by whom it should be.
    InvalidPackage,
    /// A value has no place in the value table, or is nested too deep.
    InvalidValue,
    /// The level of isolation asked for cannot be reached.
    IsolationUnavailable,
    /// A home does not accept the licence of an extension, or of what it brings along.
    LicenseDenied,
    /// The extension failed while it was being loaded.
    LoadFailed,
    /// What is installed, or is to be, is not what a lock file says.
    LockMismatch,
    /// The extension went over its memory limit.
    MemoryLimit,
    /// A message is larger than its limit.
    MessageTooLarge,
    /// A dependency is not there, or not in a version that fits.
    MissingDependency,
    /// More calls are waiting than the limit allows.
    Overloaded,
    /// Other extensions need it.
    Needed,
    /// No extension of this id is installed.
    NotInstalled,
    /// A home trusts whoever signed it too little, or not for this publisher.
    NotTrusted,
    /// The extension was not granted what it tried.
    PermissionDenied,
    /// The extension is kept at a version.
    Pinned,
    /// A peer broke the contract.
    ProtocolViolation,
    /// The extension keeps as much with its host as it may.
    QuotaExceeded,
    /// A version was released more recently than the policy of a home wants.
    ReleaseTooNew,
    /// What the home keeps cannot be read or written, or is not as it should be.
    StoreFailed,
    /// No extension of this id is loaded.
    UnknownExtension,
    /// The extension exports no method of this name.
    UnknownMethod,
    /// No runtime of this kind is in this host.
    UnknownRuntime,
    /// The host has no secret of this name.
    UnknownSecret,
    /// This build or runtime cannot do what was asked.
    Unsupported,
    /// A code of a newer contract.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// All codes, each in the place that its number says.
    pub const ALL: [Self; Self::Unknown as usize + 1] = [
        Self::AlreadyInstalled,
        Self::AlreadyLoaded,
        Self::ApiConflict,
        Self::CallDepthExceeded,
        Self::Cancelled,
        Self::ConfigRefused,
        Self::ConnectionFailed,
        Self::ConsentRequired,
        Self::CpuLimit,
        Self::DeadlineExceeded,
        Self::DependencyCycle,
        Self::EntryInvalid,
        Self::ExtensionError,
        Self::ExtensionCrashed,
        Self::ExtensionPanicked,
        Self::ExtensionPaused,
        Self::ExtensionQuarantined,
        Self::ExtensionStopped,
        Self::HookConflict,
        Self::HookFailed,
        Self::HookRecursion,
        Self::HookVetoed,
        Self::HomeInUse,
        Self::HostNotRunning,
        Self::IncompatibleVersion,
        Self::Internal,
        Self::InvalidArguments,
        Self::InvalidBackup,
        Self::InvalidConfig,
        Self::InvalidManifest,
        Self::InvalidPackage,
        Self::InvalidValue,
        Self::IsolationUnavailable,
        Self::LicenseDenied,
        Self::LoadFailed,
        Self::LockMismatch,
        Self::MemoryLimit,
        Self::MessageTooLarge,
        Self::MissingDependency,
        Self::Overloaded,
        Self::Needed,
        Self::NotInstalled,
        Self::NotTrusted,
        Self::PermissionDenied,
        Self::Pinned,
        Self::ProtocolViolation,
        Self::QuotaExceeded,
        Self::ReleaseTooNew,
        Self::StoreFailed,
        Self::UnknownExtension,
        Self::UnknownMethod,
        Self::UnknownRuntime,
        Self::UnknownSecret,
        Self::Unsupported,
        Self::Unknown,
    ];

    /// The stable text, such as `permission_denied`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyInstalled => "already_installed",
            Self::AlreadyLoaded => "already_loaded",
            Self::ApiConflict => "api_conflict",
            Self::CallDepthExceeded => "call_depth_exceeded",
            Self::Cancelled => "cancelled",
            Self::ConfigRefused => "config_refused",
            Self::ConnectionFailed => "connection_failed",
            Self::ConsentRequired => "consent_required",
            Self::CpuLimit => "cpu_limit",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::DependencyCycle => "dependency_cycle",
            Self::EntryInvalid => "entry_invalid",
            Self::ExtensionError => "extension_error",
            Self::ExtensionCrashed => "extension_crashed",
            Self::ExtensionPanicked => "extension_panicked",
            Self::ExtensionPaused => "extension_paused",
            Self::ExtensionQuarantined => "extension_quarantined",
            Self::ExtensionStopped => "extension_stopped",
            Self::HookConflict => "hook_conflict",
            Self::HookFailed => "hook_failed",
            Self::HookRecursion => "hook_recursion",
            Self::HookVetoed => "hook_vetoed",
            Self::HomeInUse => "home_in_use",
            Self::HostNotRunning => "host_not_running",
            Self::IncompatibleVersion => "incompatible_version",
            Self::Internal => "internal",
            Self::InvalidArguments => "invalid_arguments",
            Self::InvalidBackup => "invalid_backup",
            Self::InvalidConfig => "invalid_config",
            Self::InvalidManifest => "invalid_manifest",
            Self::InvalidPackage => "invalid_package",
            Self::InvalidValue => "invalid_value",
            Self::IsolationUnavailable => "isolation_unavailable",
            Self::LicenseDenied => "license_denied",
            Self::LoadFailed => "load_failed",
            Self::LockMismatch => "lock_mismatch",
            Self::MemoryLimit => "memory_limit",
            Self::MessageTooLarge => "message_too_large",
            Self::MissingDependency => "missing_dependency",
            Self::Needed => "needed",
            Self::NotInstalled => "not_installed",
            Self::NotTrusted => "not_trusted",
            Self::Overloaded => "overloaded",
            Self::PermissionDenied => "permission_denied",
            Self::Pinned => "pinned",
            Self::ProtocolViolation => "protocol_violation",
            Self::QuotaExceeded => "quota_exceeded",
            Self::ReleaseTooNew => "release_too_new",
            Self::StoreFailed => "store_failed",
            Self::UnknownExtension => "unknown_extension",
            Self::UnknownMethod => "unknown_method",
            Self::UnknownRuntime => "unknown_runtime",
            Self::UnknownSecret => "unknown_secret",
            Self::Unsupported => "unsupported",
            Self::Unknown => "unknown",
        }
    }

    /// The code of a stable text; [`ErrorCode::Unknown`] for a text of a newer contract.
    pub fn from_text(text: &str) -> Self {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it crosses the seam between hosts and extensions: [`ErrorParts`] behind a pointer,
/// so that a result without one is cheap to hand on.
///
/// The Display is the message alone; code, hint, stack and cause are data, rendered at the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Error(Box<ErrorParts>);

/// What an [`Error`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorParts {
    /// What went wrong.
    pub code: ErrorCode,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The extension in which it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// The guest's own stack trace, as its engine prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The error that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Error>,
}

impl Error {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        ErrorParts { code, message, hint: None, extension: None, stack: None, cause: None }.into()
    }

    /// Takes it apart.
    pub fn into_parts(self) -> ErrorParts {
        *self.0
    }

    /// Adds what to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the guest's stack trace.
    pub fn with_stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = Some(stack.into());
        self
    }

    /// Adds the error that led to this one.
    pub fn with_cause(mut self, cause: Self) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Names the extension in which it happened, unless that is known already.
    pub fn in_extension(mut self, id: &str) -> Self {
        self.extension.get_or_insert_with(|| id.to_owned());
        self
    }

    /// The error and its causes, outermost first.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |error| error.cause.as_ref())
    }

    /// Encodes for the seam, as MessagePack.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts and options only: encoding into memory cannot fail.
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Decodes what [`Error::to_bytes`] wrote; other bytes become a `protocol_violation`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        rmp_serde::from_slice(bytes).unwrap_or_else(|error| {
            Self::new(ErrorCode::ProtocolViolation, format!("the error could not be decoded: {error}"))
        })
    }
}

impl From<ErrorParts> for Error {
    fn from(parts: ErrorParts) -> Self {
        Self(Box::new(parts))
    }
}

impl Deref for Error {
    type Target = ErrorParts;

    fn deref(&self) -> &ErrorParts {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut ErrorParts {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorCode};

    #[test]
    fn codes_read_back() {
        for (place, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place);
            assert_eq!(ErrorCode::from_text(code.as_str()), code);
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        assert_eq!(ErrorCode::from_text("from_the_future"), ErrorCode::Unknown);
    }

    #[test]
    fn errors_keep_their_chain() {
        let error = Error::new(ErrorCode::ExtensionError, "outer")
            .with_cause(Error::new(ErrorCode::MemoryLimit, "inner").with_stack("at f"))
            .in_extension("a.b");
        let back = Error::from_bytes(&error.to_bytes());
        assert_eq!(back, error);
        assert_eq!(back.chain().map(|e| e.message.as_str()).collect::<Vec<_>>(), ["outer", "inner"]);
        assert_eq!(Error::from_bytes(b"\xc1").code, ErrorCode::ProtocolViolation);
    }
}
