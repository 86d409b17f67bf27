// SPDX-License-Identifier: Apache-2.0
//! Typed references into bytes, with this crate's errors.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{EmitError, ParseError};

/// The header at the front of `bytes`, and what follows it.
#[inline]
pub(crate) fn split<T>(bytes: &[u8]) -> Result<(&T, &[u8]), ParseError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated)
}

/// The header at the front of `bytes`, mutable, and what follows it.
#[inline]
pub(crate) fn split_mut<T>(bytes: &mut [u8]) -> Result<(&mut T, &mut [u8]), ParseError>
where
    T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
{
    T::mut_from_prefix(bytes).map_err(|_| ParseError::Truncated)
}

/// Writes `value` to the front of `buffer`; returns its length in bytes.
#[inline]
pub(crate) fn put<T>(value: &T, buffer: &mut [u8]) -> Result<usize, EmitError>
where
    T: IntoBytes + Immutable,
{
    value.write_to_prefix(buffer).map_err(|_| EmitError::NoSpace)?;
    Ok(size_of::<T>())
}

/// Copies `bytes` to `buffer` at `offset`; returns the offset behind them.
#[inline]
pub(crate) fn put_bytes(buffer: &mut [u8], offset: usize, bytes: &[u8]) -> Result<usize, EmitError> {
    let end = offset.checked_add(bytes.len()).ok_or(EmitError::TooLong)?;
    buffer.get_mut(offset..end).ok_or(EmitError::NoSpace)?.copy_from_slice(bytes);
    Ok(end)
}

/// The big-endian 16-bit word at `offset`.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
