//! Base64 (RFC 4648, section 4), in lines as MIME has them (RFC 2045, section 6.8): what crit writes and reads.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Bytes that a line of 76 characters stands for.
const LINE: usize = 57;

/// Text of bytes: every line, the last one too, ends with a line feed; no bytes are no text.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + bytes.len() / LINE + 8);
    for line in bytes.chunks(LINE) {
        for three in line.chunks(3) {
            let word = three.iter().fold(0u32, |all, b| all << 8 | u32::from(*b)) << (8 * (3 - three.len()));
            for n in 0..4 {
                let index = word >> (18 - 6 * n) & 63;
                text.push(if n > three.len() { '=' } else { char::from(ALPHABET[index as usize]) });
            }
        }
        text.push('\n');
    }
    text
}

/// The bytes of a text; white space does not count. `None` if it is not base64.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let padding = digits.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for four in digits[..digits.len() - padding].chunks(4) {
        let mut word = 0u32;
        for digit in four {
            word = word << 6 | ALPHABET.iter().position(|a| a == digit)? as u32;
        }
        word <<= 6 * (4 - four.len());
        let whole = word.to_be_bytes();
        let kept = four.len() - 1;
        // Bits that no byte has must be 0, or two texts would stand for the same bytes.
        if whole[1 + kept..].iter().any(|b| *b != 0) {
            return None;
        }
        bytes.extend_from_slice(&whole[1..=kept]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4648_hold() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg==\n"),
            ("fo", "Zm8=\n"),
            ("foo", "Zm9v\n"),
            ("foob", "Zm9vYg==\n"),
            ("fooba", "Zm9vYmE=\n"),
            ("foobar", "Zm9vYmFy\n"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in ["Z", "Zg=", "Zh==", "Zg==Zg==", "====", "Zm9*", "Zm9vé"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lines_have_76_characters_and_every_length_comes_back() {
        for len in 0..400usize {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 37 + len) as u8).collect();
            let text = encode(&bytes);
            assert!(text.lines().all(|l| l.len() <= 76));
            assert_eq!(decode(&text), Some(bytes));
        }
    }
}
