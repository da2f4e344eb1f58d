//! Frames of the binary protocol as a person writes them.
//!
//! ```text
//! set key=k extras=5,0 value=hello            sent
//! set cas=7                                   its answer
//! getk opaque=4 key=nobody                    sent
//! getk 0x1 opaque=4 key=nobody                its answer: what is 0 or empty is left out
//! 0x99 body=3                                 a command that nobody knows, three bytes announced
//! ```
//!
//! Extras are numbers of four bytes, or of eight as `8:1`. Everything behind `value=` is the value.

use protocol::binary::response::BinaryResponse;
use protocol::binary::{Opcode, REQUEST_MAGIC};

/// The bytes of the request that `text` writes.
///
/// # Errors
/// When it writes none.
pub fn encode(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (words, value) = match find(text, b"value=") {
        Some(at) => (&text[..at], &text[at + b"value=".len()..]),
        None => (text, &[][..]),
    };
    let mut words = words.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let opcode = opcode_of(words.next().ok_or("a frame names its command")?)?;
    let (mut magic, mut opaque, mut cas) = (REQUEST_MAGIC, 0_u32, 0);
    let (mut key, mut extras, mut body) = (Vec::new(), Vec::new(), None);
    for word in words {
        let at = find(word, b"=").ok_or("a part of a frame has a name and a value")?;
        let (name, said) = (&word[..at], &word[at + 1..]);
        match name {
            b"key" => key = said.to_vec(),
            b"extras" => extras = extras_of(said)?,
            b"opaque" => opaque = number(said)?,
            b"cas" => cas = number::<u64>(said)?,
            b"body" => body = Some(number::<u32>(said)?),
            b"magic" => magic = number(said)?,
            _ => return Err("no part of a frame is called so"),
        }
    }
    let body_bytes = u32::try_from(extras.len() + key.len() + value.len()).ok();
    let body = body.or(body_bytes).ok_or("a body that is too long")?;
    let key_bytes = u16::try_from(key.len()).map_err(|_| "a key that is too long")?;
    let extras_bytes = u8::try_from(extras.len()).map_err(|_| "too many extras")?;
    let mut frame = vec![magic, opcode];
    frame.extend_from_slice(&key_bytes.to_be_bytes());
    frame.extend_from_slice(&[extras_bytes, 0, 0, 0]);
    frame.extend_from_slice(&body.to_be_bytes());
    frame.extend_from_slice(&opaque.to_be_bytes());
    frame.extend_from_slice(&cas.to_be_bytes());
    for part in [&extras, &key, value] {
        frame.extend_from_slice(part);
    }
    Ok(frame)
}

/// An answer in words.
#[must_use]
pub fn describe(response: &BinaryResponse<'_>) -> Vec<u8> {
    let mut text = match Opcode::from_byte(response.head.opcode) {
        Some(opcode) => name_of(opcode),
        None => format!("0x{:02x}", response.head.opcode),
    };
    if response.status != 0 {
        text += &format!(" {:#x}", response.status);
    }
    if response.head.opaque != 0 {
        text += &format!(" opaque={}", response.head.opaque);
    }
    if response.cas != 0 {
        text += &format!(" cas={}", response.cas);
    }
    let (numbers, _) = response.extras.as_chunks::<4>();
    let numbers: Vec<String> =
        numbers.iter().map(|number| u32::from_be_bytes(*number).to_string()).collect();
    if !numbers.is_empty() {
        text += &format!(" extras={}", numbers.join(","));
    }
    let mut text = text.into_bytes();
    for (name, part) in [(" key=", response.key), (" value=", response.value)] {
        if !part.is_empty() {
            text.extend_from_slice(name.as_bytes());
            // A number is eight bytes that are no text.
            match part.as_array::<8>() {
                Some(bytes) if bytes[0] == 0 || bytes[0] == 0xff => {
                    text.extend_from_slice(u64::from_be_bytes(*bytes).to_string().as_bytes());
                }
                _ => text.extend_from_slice(part),
            }
        }
    }
    text
}

fn name_of(opcode: Opcode) -> String {
    format!("{opcode:?}").to_lowercase()
}

fn opcode_of(word: &[u8]) -> Result<u8, &'static str> {
    let named = Opcode::ALL.iter().find(|&&opcode| name_of(opcode).as_bytes() == word);
    match named {
        Some(&opcode) => Ok(opcode as u8),
        None => number(word).map_err(|_| "no such command"),
    }
}

fn extras_of(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut extras = Vec::new();
    for one in text.split(|&byte| byte == b',') {
        match one.strip_prefix(b"8:") {
            Some(digits) => extras.extend_from_slice(&number::<u64>(digits)?.to_be_bytes()),
            None => extras.extend_from_slice(&number::<u32>(one)?.to_be_bytes()),
        }
    }
    Ok(extras)
}

/// In decimal, or behind `0x`.
fn number<N: TryFrom<u64>>(text: &[u8]) -> Result<N, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "not a number")?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let number = number.map_err(|_| "not a number")?;
    N::try_from(number).map_err(|_| "a number that is too large")
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use protocol::binary::Head;

    use super::*;

    #[test]
    fn a_frame_is_written_as_its_parts() {
        let frame = encode(b"add opaque=9 cas=0x102 key=k extras=5,8:1 value=a b=c").unwrap();
        assert_eq!(frame[..12], [0x80, 2, 0, 1, 12, 0, 0, 0, 0, 0, 0, 18]);
        assert_eq!(frame[12..24], [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(frame[24..36], [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(&frame[36..], b"ka b=c");
        for wrong in ["", "gett key=k", "get key", "get keys=k", "get opaque=x"] {
            assert!(encode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_told_without_what_is_nothing() {
        let head = Head { opcode: Opcode::GetKQ as u8, opaque: 3 };
        let mut response = BinaryResponse {
            head,
            status: 0,
            cas: 7,
            extras: &[0, 0, 0, 5],
            key: b"k",
            value: b"a b",
        };
        assert_eq!(describe(&response), b"getkq opaque=3 cas=7 extras=5 key=k value=a b");
        response = BinaryResponse {
            status: 0x81,
            head: Head { opcode: 0x99, opaque: 0 },
            cas: 0,
            extras: b"",
            key: b"",
            value: &[0, 0, 0, 0, 0, 0, 1, 0],
        };
        assert_eq!(describe(&response), b"0x99 0x81 value=256");
    }
}
