//! Strings of JSON (RFC 8259): where one ends, and which characters it spells.

use std::borrow::Cow;

use wide::u8x16;

use super::scan::Stop;

/// Where in a text strings may end. Sixty-four bytes are looked at together and remembered, since most strings are
/// shorter: what is asked next is mostly known already. Of one text only.
pub(super) struct Ends {
    /// Where the bytes that are known begin.
    begin: usize,
    /// A bit for each of them: a quote, a backslash or a control character.
    marks: u64,
    /// Where the backslash stands that was met last; 0 if there was none.
    last_escape: usize,
}

impl Default for Ends {
    fn default() -> Self {
        // Behind every text: nothing is known.
        Self { begin: usize::MAX - 64, marks: 0, last_escape: 0 }
    }
}

impl Ends {
    /// The end of the key whose opening quote should be at `at`.
    #[inline]
    pub(super) fn key(&mut self, text: &[u8], at: usize) -> Result<usize, Stop> {
        if text[at] == b'"' { self.string(text, at) } else { Err(Stop::Invalid) }
    }

    /// The end of the string whose opening quote is at `at`.
    #[inline]
    pub(super) fn string(&mut self, text: &[u8], at: usize) -> Result<usize, Stop> {
        let at = self.next(text, at + 1);
        if text.get(at) == Some(&b'"') { Ok(at + 1) } else { self.string_with_escapes(text, at) }
    }

    /// As [`Ends::string`], from a backslash on, or from what has no place in a string.
    #[cold]
    fn string_with_escapes(&mut self, text: &[u8], mut at: usize) -> Result<usize, Stop> {
        loop {
            match text.get(at) {
                None => return Err(Stop::Incomplete),
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => {
                    self.last_escape = at;
                    at = self.next(text, escape(text, at)?);
                }
                Some(_) => return Err(Stop::Invalid),
            }
        }
    }

    /// Whether a string that was met last, and whose opening quote is at `at`, has escapes.
    #[inline]
    pub(super) fn escaped_since(&self, at: usize) -> bool {
        self.last_escape > at
    }

    /// The first quote, backslash or control character from `at` on, or the end of the text.
    #[inline]
    fn next(&mut self, text: &[u8], mut at: usize) -> usize {
        loop {
            let offset = at.wrapping_sub(self.begin);
            if offset < 64 {
                match self.marks >> offset {
                    0 => at = self.begin + 64,
                    marks => return at + marks.trailing_zeros() as usize,
                }
            }
            if at >= text.len() {
                return text.len();
            }
            self.look(text, at);
        }
    }

    /// Looks at the bytes from `at` on.
    fn look(&mut self, text: &[u8], at: usize) {
        self.begin = at;
        self.marks = if let Some(block) = text[at..].first_chunk() {
            marks_in(block)
        } else {
            // What stands behind the text is a control character, which ends it.
            let mut block = [0; 64];
            block[..text.len() - at].copy_from_slice(&text[at..]);
            marks_in(&block)
        };
    }
}

/// A bit for each quote, backslash or control character.
#[inline]
fn marks_in(block: &[u8; 64]) -> u64 {
    let (quote, backslash, last_control) = (u8x16::splat(b'"'), u8x16::splat(b'\\'), u8x16::splat(0x1f));
    let marks = |chunk: &[u8; 16]| {
        let bytes = u8x16::new(*chunk);
        (bytes.simd_eq(quote) | bytes.simd_eq(backslash) | bytes.simd_eq(bytes.min(last_control))).to_bitmask()
    };
    let chunks = block.as_chunks().0.iter().rev();
    chunks.fold(0, |bits, chunk| bits << 16 | u64::from(marks(chunk)))
}

/// The end of the escape at `at`.
fn escape(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text.get(at + 1) {
        None => Err(Stop::Incomplete),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(text, at + 2)? {
            0xdc00..=0xdfff => Err(Stop::Invalid),
            0xd800..=0xdbff => {
                for (offset, expected) in [(6, b'\\'), (7, b'u')] {
                    match text.get(at + offset) {
                        None => return Err(Stop::Incomplete),
                        Some(byte) if *byte == expected => {}
                        Some(_) => return Err(Stop::Invalid),
                    }
                }
                match hex4(text, at + 8)? {
                    0xdc00..=0xdfff => Ok(at + 12),
                    _ => Err(Stop::Invalid),
                }
            }
            _ => Ok(at + 6),
        },
        Some(_) => Err(Stop::Invalid),
    }
}

/// The four hexadecimal digits at `at`.
fn hex4(text: &[u8], at: usize) -> Result<u32, Stop> {
    (at..at + 4).try_fold(0, |number, at| {
        let digit = char::from(*text.get(at).ok_or(Stop::Incomplete)?).to_digit(16).ok_or(Stop::Invalid)?;
        Ok(number << 4 | digit)
    })
}

/// The characters that a string's inside spells; borrowed where there are no escapes.
#[inline]
pub(super) fn unescape(inside: &str) -> Cow<'_, str> {
    if !has_escape(inside.as_bytes()) {
        return Cow::Borrowed(inside);
    }
    // The scanner has checked every escape; what is no string after all stays as it is.
    serde_json::from_str(&format!("\"{inside}\"")).map_or(Cow::Borrowed(inside), Cow::Owned)
}

/// Whether there is a backslash.
#[inline]
fn has_escape(inside: &[u8]) -> bool {
    let backslash = u8x16::splat(b'\\');
    let has = |chunk: &[u8; 16]| u8x16::new(*chunk).simd_eq(backslash).to_bitmask() != 0;
    match inside.last_chunk() {
        Some(last) => has(last) || inside.as_chunks().0.iter().any(has),
        None => inside.contains(&b'\\'),
    }
}

/// The characters of a JSON string; `None` for another kind of value.
#[inline]
pub(super) fn string_of(value: &str) -> Option<Cow<'_, str>> {
    inside_of(value).map(unescape)
}

/// What stands between the quotes of a JSON string; `None` for another kind of value.
#[inline]
pub(super) fn inside_of(value: &str) -> Option<&str> {
    // Bytes: `strip_prefix` is a call of `memcmp`.
    match value.as_bytes() {
        [b'"', .., b'"'] => Some(&value[1..value.len() - 1]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_backslash_or_control_character_may_end_a_string_at_any_place() {
        for length in 0..200 {
            let plain_text = "é~ !#[]"[..].chars().cycle().take(length).collect::<String>();
            let start = plain_text.len() / 3;
            for end in ["\"", "\\", "\u{0}", "\u{1f}", "\n"] {
                let text = format!("{plain_text}{end}{plain_text}\"\u{1}");
                let mut ends = Ends::default();
                assert_eq!(ends.next(text.as_bytes(), start), plain_text.len());
                assert_eq!(ends.next(text.as_bytes(), plain_text.len()), plain_text.len());
                assert_eq!(ends.next(text.as_bytes(), plain_text.len() + 1), 2 * plain_text.len() + 1);
            }
            assert_eq!(Ends::default().next(plain_text.as_bytes(), start), plain_text.len());
        }
    }

    #[test]
    fn a_backslash_is_found_at_any_place() {
        for length in 0..50 {
            let mut text = vec![b'x'; length];
            assert!(!has_escape(&text));
            for at in 0..length {
                text[at] = b'\\';
                assert!(has_escape(&text), "{at} of {length}");
                text[at] = b'x';
            }
        }
    }
}
