//! How a payload is shown to a person.

use std::borrow::Cow;
use std::fmt::Write;

use clap::ValueEnum;
use serde_json::Value;

use crate::cbor;

/// Bytes in a line of a hex dump.
const HEX_LINE_LEN: usize = 16;

/// A way to show a payload. What cannot be shown in one way is shown in another: `json` and `cbor`
/// go on as `text` and `hex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// The bytes as they are
    Raw,
    /// Text, with control characters and other bytes as \x1b
    Text,
    /// JSON, indented
    Json,
    /// A hex dump
    Hex,
    /// CBOR in diagnostic notation
    Cbor,
    /// JSON, text, CBOR or hex, whichever fits
    Auto,
}

impl View {
    /// The payload in this view, without a newline at its end.
    pub fn show(self, payload: &[u8]) -> Cow<'_, [u8]> {
        self.readable(payload).unwrap_or_else(|| hex(payload).into_bytes().into())
    }

    /// As [`View::show`]; none where that is a hex dump.
    pub fn readable(self, payload: &[u8]) -> Option<Cow<'_, [u8]>> {
        let shown = match self {
            View::Raw => return Some(payload.into()),
            View::Text => None,
            View::Json => json(payload, JsonLayout::SPACES, 0),
            View::Hex => return None,
            View::Cbor => Some(cbor(payload)?),
            View::Auto if is_plain_text(payload) => container_of_json(payload),
            View::Auto => Some(container_of_cbor(payload)?),
        };
        Some(shown.map_or_else(|| text(payload), |shown| shown.into_bytes().into()))
    }
}

/// Whether a terminal shows it as it is.
fn is_plain_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| !text.chars().any(is_harmful))
}

/// Control characters move the cursor and can do worse to a terminal.
fn is_harmful(char: char) -> bool {
    char.is_control() && char != '\n' && char != '\t'
}

/// Text that does nothing to a terminal.
pub fn text(payload: &[u8]) -> Cow<'_, [u8]> {
    if is_plain_text(payload) {
        return payload.into();
    }
    let mut out = String::new();
    let escape = |out: &mut String, byte: u8| {
        let _ = write!(out, "\\x{byte:02x}");
    };
    for chunk in payload.utf8_chunks() {
        for char in chunk.valid().chars() {
            if is_harmful(char) {
                let mut bytes = [0; 4];
                char.encode_utf8(&mut bytes).bytes().for_each(|byte| escape(&mut out, byte));
            } else {
                out.push(char);
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(&mut out, *byte));
    }
    out.into_bytes().into()
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}

/// A number alone is text as well.
fn container_of_json(payload: &[u8]) -> Option<String> {
    let first = payload.iter().find(|byte| !byte.is_ascii_whitespace())?;
    b"{[".contains(first).then(|| json(payload, JsonLayout::SPACES, 0)).flatten()
}

/// How JSON is laid out.
#[derive(Clone, Copy)]
pub struct JsonLayout {
    newline: &'static str,
    indent: &'static str,
    colon: &'static str,
}

impl JsonLayout {
    /// Two spaces for each level.
    const SPACES: JsonLayout = JsonLayout { newline: "\n", indent: "  ", colon: ": " };
    /// A tab for each level, and one before each value.
    pub const TABS: JsonLayout = JsonLayout { newline: "\n", indent: "\t", colon: ":\t" };
    /// All in one line.
    pub const COMPACT: JsonLayout = JsonLayout { newline: "", indent: "", colon: ":" };

    fn end_line(self, out: &mut String, depth: usize) {
        out.push_str(self.newline);
        out.extend(std::iter::repeat_n(self.indent, depth));
    }
}

/// JSON in another layout, its first line `depth` levels deep; none if it is not JSON. Numbers,
/// strings and the order stay as they were written.
pub fn json(payload: &[u8], layout: JsonLayout, mut depth: usize) -> Option<String> {
    let text = std::str::from_utf8(payload).ok().filter(|text| is_json(text))?;
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' => copy_string(&mut chars, &mut out),
            '{' | '[' => {
                out.push(char);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                match chars.next_if(|next| "}]".contains(*next)) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        layout.end_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth -= 1;
                layout.end_line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(',');
                layout.end_line(&mut out, depth);
            }
            ':' => out.push_str(layout.colon),
            char if char.is_ascii_whitespace() => {}
            char => out.push(char),
        }
    }
    Some(out)
}

/// What follows the first quotation mark of a string in valid JSON, to the last one.
fn copy_string(chars: &mut impl Iterator<Item = char>, out: &mut String) {
    out.push('"');
    while let Some(char) = chars.next() {
        match char {
            // Those from U+007F on need no escape in JSON.
            char if is_harmful(char) => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
        match char {
            '"' => return,
            '\\' => out.extend(chars.next()),
            _ => {}
        }
    }
}

/// Maps, lists and what has a tag: any byte below 0x18 would be a number in CBOR.
fn container_of_cbor(payload: &[u8]) -> Option<String> {
    matches!(payload.first()? >> 5, 4..=6).then(|| cbor(payload)).flatten()
}

fn cbor(payload: &[u8]) -> Option<String> {
    let shown = cbor::diagnostic(payload)?;
    // Text in it is shown as it is.
    Some(String::from_utf8_lossy(&text(shown.as_bytes())).into_owned())
}

fn hex(payload: &[u8]) -> String {
    let mut out = String::new();
    for (index, line) in payload.chunks(HEX_LINE_LEN).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let _ = write!(out, "{:08x} ", index * HEX_LINE_LEN);
        for at in 0..HEX_LINE_LEN {
            let gap = if at == HEX_LINE_LEN / 2 { " " } else { "" };
            let _ = match line.get(at) {
                Some(byte) => write!(out, "{gap} {byte:02x}"),
                None => write!(out, "{gap}   "),
            };
        }
        let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' };
        let _ = write!(out, "  |{}|", line.iter().map(shown).collect::<String>());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(view: View, payload: &[u8]) -> String {
        String::from_utf8(view.show(payload).into()).unwrap()
    }

    /// `{"t": 21.5, "on": [true, h'ff']}`
    const MAP: &[u8] = b"\xa2\x61t\xf9\x4d\x60\x62on\x82\xf5\x41\xff";

    #[test]
    fn text_does_nothing_to_a_terminal() {
        assert_eq!(show(View::Text, "a\tb\nc \u{e9}".as_bytes()), "a\tb\nc \u{e9}");
        assert_eq!(show(View::Text, b"\x1b[2Ja\r\0\xff\xc3("), r"\x1b[2Ja\x0d\x00\xff\xc3(");
        assert_eq!(show(View::Text, "\u{9b}x".as_bytes()), r"\xc2\x9bx");
        assert_eq!(&*View::Raw.show(b"\x1b\xff"), b"\x1b\xff");
    }

    #[test]
    fn json_keeps_what_was_written() {
        let written = br#" {"b":1.10,"a":[1e40, {} ,[ ]],"b":"x,\"{:\\","n":null}"#;
        let shown = r#"{
  "b": 1.10,
  "a": [
    1e40,
    {},
    []
  ],
  "b": "x,\"{:\\",
  "n": null
}"#;
        assert_eq!(show(View::Json, written), shown);
        assert_eq!(
            json(br#"[1, {"a" : "b c"}]"#, JsonLayout::COMPACT, 0).unwrap(),
            r#"[1,{"a":"b c"}]"#
        );
        assert_eq!(show(View::Json, b"12"), "12");
        assert_eq!(show(View::Json, b"{\"a\":"), "{\"a\":");
        assert_eq!(show(View::Json, "[\"\u{9b}\"]".as_bytes()), "[\n  \"\\u009b\"\n]");
    }

    #[test]
    fn cbor_in_diagnostic_notation() {
        assert_eq!(show(View::Cbor, MAP), r#"{"t": 21.5, "on": [true, h'ff']}"#);
        assert_eq!(show(View::Cbor, "\x62\u{9b}".as_bytes()), r#""\xc2\x9b""#);
        // Two items, a torn one, and none at all.
        for not_one in [&b"\x01\x02"[..], b"\xa2\x61t", b""] {
            assert_eq!(show(View::Cbor, not_one), show(View::Hex, not_one));
        }
    }

    #[test]
    fn hex_dumps() {
        let dump = "\
00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|
00000010  41 7e 7f                                          |A~.|";
        let payload: Vec<u8> = (0..16).chain(*b"A~\x7f").collect();
        assert_eq!(show(View::Hex, &payload), dump);
        assert_eq!(show(View::Hex, b""), "");
    }

    #[test]
    fn what_fits_is_chosen() {
        for (payload, view) in [
            (&b"21.5"[..], View::Text),
            (b"", View::Text),
            (b"{not json}", View::Text),
            (b"{\"a\": [1, 2]}", View::Json),
            (MAP, View::Cbor),
            (b"\x01", View::Hex),
            (b"\xff\xfe", View::Hex),
            (b"\x1b[2J", View::Hex),
        ] {
            assert_eq!(show(View::Auto, payload), show(view, payload), "{payload:?}");
        }
    }
}
