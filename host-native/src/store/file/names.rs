//! From a stream's name to the name of its file.
//!
//! Every system must keep two streams in two files, also one that folds upper case or knows devices by their names.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Longer encoded names are cut, and told apart by a hash.
const ENCODED_BYTES_MAX: usize = 120;

/// How much is left of an encoded name that is cut.
const CUT_BYTES_MAX: usize = 80;

/// How much of the hash stands behind a name that was cut: 128 bits.
const HASH_BYTES: usize = 16;

const SUFFIX: &str = ".stream";

/// The name of a stream's file: one part of a path, of `a-z 0-9 - _ % ~ .`, at most 127 bytes.
///
/// Shape: a-z, 0-9, `-` and `_` are left as they are, each other byte is `%` and two hex digits. What is longer than
/// 120 bytes is cut after 80, and `~` and half a SHA-256 of the stream's name in hex follow. `.stream` ends it.
pub fn stream_file_name(stream: &str) -> String {
    let mut name = String::with_capacity(ENCODED_BYTES_MAX + SUFFIX.len());
    let device = is_device(stream);
    // Where the name ends if it must be cut: never within an encoded byte.
    let mut cut = 0;
    for (at, byte) in stream.bytes().enumerate() {
        let stays = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if stays && !(device && at == 0) {
            name.push(char::from(byte));
        } else {
            push_hex(&mut name, "%", &[byte]);
        }
        if name.len() <= CUT_BYTES_MAX {
            cut = name.len();
        }
        if name.len() > ENCODED_BYTES_MAX {
            name.truncate(cut);
            push_hex(&mut name, "~", &Sha256::digest(stream)[..HASH_BYTES]);
            break;
        }
    }
    name.push_str(SUFFIX);
    name
}

/// Whether a file of this name can be a stream's.
pub fn is_stream_file_name(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// Windows takes these for devices, whatever follows after a dot. In upper case they are encoded anyway.
fn is_device(stream: &str) -> bool {
    match stream {
        "con" | "nul" | "aux" | "prn" => true,
        _ => {
            let number = stream
                .strip_prefix("com")
                .or_else(|| stream.strip_prefix("lpt"));
            number.is_some_and(|number| matches!(number.as_bytes(), [b'0'..=b'9']))
        }
    }
}

fn push_hex(name: &mut String, before: &str, bytes: &[u8]) {
    name.push_str(before);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn plain_names_are_left_alone() {
        assert_eq!(stream_file_name("chat"), "chat.stream");
        assert_eq!(stream_file_name("todo_list-2"), "todo_list-2.stream");
    }

    #[test]
    fn all_other_bytes_are_encoded() {
        let names = [
            (".", "%2e.stream"),
            ("..", "%2e%2e.stream"),
            ("../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd.stream"),
            ("a\0b", "a%00b.stream"),
            ("Chat", "%43hat.stream"),
            ("chat::a b", "chat%3a%3aa%20b.stream"),
            ("%", "%25.stream"),
            ("~", "%7e.stream"),
            ("\u{1f600}", "%f0%9f%98%80.stream"),
            ("c:\\x", "c%3a%5cx.stream"),
        ];
        for (stream, file) in names {
            assert_eq!(stream_file_name(stream), file);
        }
    }

    #[test]
    fn devices_are_no_names() {
        let names = [
            ("con", "%63on.stream"),
            ("CON", "%43%4f%4e.stream"),
            ("nul", "%6eul.stream"),
            ("com1", "%63om1.stream"),
            ("lpt9", "%6cpt9.stream"),
            ("com", "com.stream"),
            ("com10", "com10.stream"),
            ("console", "console.stream"),
            ("con.x", "con%2ex.stream"),
        ];
        for (stream, file) in names {
            assert_eq!(stream_file_name(stream), file);
        }
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let longest = "a".repeat(ENCODED_BYTES_MAX);
        assert_eq!(stream_file_name(&longest), format!("{longest}.stream"));
        let (one, other) = ("a".repeat(1024), "a".repeat(1023));
        let name = stream_file_name(&one);
        assert_eq!(name.len(), CUT_BYTES_MAX + 1 + 2 * HASH_BYTES + 7);
        assert_ne!(name, stream_file_name(&other));
        // 26 encoded bytes take 78; a 27th would end after 80.
        let dots = stream_file_name(&".".repeat(1024));
        assert!(
            dots.starts_with(&format!("{}~", "%2e".repeat(26))),
            "{dots}"
        );
    }

    #[test]
    fn no_two_streams_share_a_file_and_every_name_is_one_part() {
        let mut streams: Vec<String> = Vec::new();
        for one in 0..=255_u8 {
            let one = char::from(one);
            streams.push(one.to_string());
            streams.extend([' ', '%', '.', 'a', '/', '2'].map(|two| format!("{one}{two}")));
        }
        for bytes in 1..=1024 {
            streams.push("x".repeat(bytes));
            streams.push(format!("{}A", "y".repeat(bytes - 1)));
            streams.push(format!("A{}", "z".repeat(bytes - 1)));
        }
        streams.extend(["con", "%63on", "%2563on", "chat", "Chat", "%43hat"].map(String::from));
        streams.sort();
        streams.dedup();
        let mut files: HashMap<String, &str> = HashMap::new();
        for stream in &streams {
            let file = stream_file_name(stream);
            assert!(file.len() > SUFFIX.len() && file.len() <= 127, "{file}");
            assert!(is_stream_file_name(&file));
            let stem = file.strip_suffix(SUFFIX).expect("a suffix");
            assert!(
                stem.bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'%' | b'~')),
                "{file}"
            );
            if let Some(before) = files.insert(file, stream) {
                panic!("{before:?} and {stream:?} share a file");
            }
        }
    }
}
