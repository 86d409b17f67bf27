// SPDX-License-Identifier: Apache-2.0
//! IPv4 options (RFC 791 §3.1): a bounded walk, and the options that fragments carry.
//!
//! ```text
//! +--------+--------+---------- … ---+
//! |  type  | length |     data       |   type = copied (1 bit), class (2), number (5)
//! +--------+--------+---------- … ---+
//! ```

use crate::{EmitError, ParseError};

const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

/// The longest list of options, in bytes.
pub const MAX_BYTES: usize = 40;

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Option<'a> {
    /// The type byte: copied flag, class, number.
    pub kind: u8,
    /// The whole option, its type and length bytes included.
    pub bytes: &'a [u8],
}

impl Ipv4Option<'_> {
    /// Whether every fragment carries it (RFC 791 §3.1).
    pub const fn is_copied(&self) -> bool {
        self.kind & COPIED != 0
    }
}

/// The options of a header, one by one; ends after the first bad one.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// A walk over `options`, the bytes between the fixed header and the payload.
    pub const fn new(options: &'a [u8]) -> Options<'a> {
        Options { rest: options }
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (option, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(option)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Ipv4Option<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [NO_OPERATION, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let kind = match *self.rest {
            [] | [END_OF_LIST, ..] => return None,
            [kind, ..] => kind,
        };
        let length = self.rest.get(1).map_or(0, |length| usize::from(*length));
        match self.take(length) {
            Some(bytes) if length >= 2 => Some(Ok(Ipv4Option { kind, bytes })),
            _ => {
                self.rest = &[];
                Some(Err(ParseError::BadOption))
            }
        }
    }
}

/// Writes the options of `options` that later fragments carry to `buffer`, padded to whole words; returns the length.
///
/// # Errors
/// [`EmitError::NotAllowed`] when an option is bad; [`EmitError::NoSpace`].
pub fn copy_for_fragment(options: &[u8], buffer: &mut [u8; MAX_BYTES]) -> Result<usize, EmitError> {
    let mut end = 0;
    for option in Options::new(options) {
        let option = option.map_err(|_| EmitError::NotAllowed)?;
        if option.is_copied() {
            end = crate::view::put_bytes(buffer, end, option.bytes)?;
        }
    }
    let padded = end.next_multiple_of(4);
    buffer.get_mut(end..padded).ok_or(EmitError::NoSpace)?.fill(END_OF_LIST);
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;
    use std::vec::Vec;

    /// Made with Scapy: router alert (copied), a no-operation, an empty record route (not copied).
    const OPTIONS: &str = "94040000 01070704 00000000";

    #[test]
    fn known_options_are_walked_in_order() {
        let options = hex(OPTIONS);
        let walked: Vec<_> = Options::new(&options).map(Result::unwrap).collect();
        assert_eq!(walked.len(), 2);
        assert_eq!((walked[0].kind, walked[0].bytes, walked[0].is_copied()), (0x94, &options[..4], true));
        assert_eq!((walked[1].kind, walked[1].bytes, walked[1].is_copied()), (7, &options[5..12], false));
    }

    #[test]
    fn the_end_of_the_list_ends_it_and_padding_is_not_an_option() {
        assert_eq!(Options::new(&[]).count(), 0);
        assert_eq!(Options::new(&hex("01010101")).count(), 0);
        assert_eq!(Options::new(&hex("01000404")).count(), 0);
    }

    #[test]
    fn impossible_lengths_end_the_walk_with_an_error() {
        for options in ["07", "0700", "0701", "0703", "0101 94ff 0000", "94040000 44"] {
            let walked: Vec<_> =
                Options::new(&hex(options)).map(|option| option.map(|option| option.kind)).collect();
            assert_eq!(walked.last(), Some(&Err(ParseError::BadOption)), "{options}");
            assert_eq!(walked.iter().filter(|option| option.is_err()).count(), 1);
            assert_eq!(copy_for_fragment(&hex(options), &mut [0; MAX_BYTES]), Err(EmitError::NotAllowed));
        }
    }

    #[test]
    fn later_fragments_carry_the_copied_options_padded_to_words() {
        let mut buffer = [0xa5; MAX_BYTES];
        assert_eq!(copy_for_fragment(&hex(OPTIONS), &mut buffer), Ok(4));
        assert_eq!(buffer[..5], hex("94040000 a5"));
        let mut buffer = [0xa5; MAX_BYTES];
        assert_eq!(copy_for_fragment(&hex("01 8303aa 440400bb"), &mut buffer), Ok(4));
        assert_eq!(buffer[..5], hex("8303aa00 a5"));
        assert_eq!(copy_for_fragment(&[], &mut buffer), Ok(0));
    }

    #[test]
    fn the_longest_list_of_copied_options_fits() {
        let mut options = [0xcc; MAX_BYTES];
        (options[0], options[1]) = (0x83, 40);
        let mut buffer = [0xa5; MAX_BYTES];
        assert_eq!(copy_for_fragment(&options, &mut buffer), Ok(MAX_BYTES));
        assert_eq!(buffer, options);
    }
}
