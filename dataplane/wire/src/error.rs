// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with bytes read, and with a buffer to write into.
//!
//! Small `Copy` enums: which drop an error is, the stage that sees it decides.

/// Why bytes are not the header or packet they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// The bytes end before the header, or before the length the header states.
    #[error("truncated")]
    Truncated,
    /// The version is not the one the format asks for.
    #[error("bad version")]
    BadVersion,
    /// The header length is below the least the format allows.
    #[error("bad header length")]
    BadHeaderLength,
    /// A length contradicts another one (a header longer than its packet, a pad longer than its payload).
    #[error("bad length")]
    BadLength,
    /// The checksum does not match.
    #[error("bad checksum")]
    BadChecksum,
    /// More IPv6 extension headers than [`crate::ipv6::MAX_EXTENSION_HEADERS`].
    #[error("too many extension headers")]
    TooManyExtensionHeaders,
    /// An IPv6 extension header where it may not stand.
    #[error("misplaced extension header")]
    MisplacedExtensionHeader,
    /// A bit is set which a receiver must refuse.
    #[error("reserved bits")]
    ReservedBits,
    /// An option has an impossible length.
    #[error("bad option")]
    BadOption,
    /// An address that may not stand where it stands.
    #[error("bad address")]
    BadAddress,
    /// A field holds a value that the format refuses here.
    #[error("bad value")]
    BadValue,
}

/// Why a header or packet could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EmitError {
    /// The buffer is too short.
    #[error("buffer too short")]
    NoSpace,
    /// A length does not fit its field, or a size limit leaves no room.
    #[error("length does not fit")]
    TooLong,
    /// What was to be written is not allowed (an error about an error, both addresses of different families).
    #[error("not allowed")]
    NotAllowed,
}
