//! Payloads and names as lines that fit into a pane.

use unicode_width::UnicodeWidthChar;

use crate::view::{View, text};

/// The views to choose from.
const ALL: [View; 5] = [View::Auto, View::Text, View::Json, View::Hex, View::Cbor];

/// A payload that is longer is no CBOR and no JSON for [`preview`].
const SHORT: usize = 1024;

/// Characters of a preview, at most: more than any column shows.
const PREVIEW_LEN: usize = 160;

/// The view that follows, or the one before.
pub fn turned(view: View, backwards: bool) -> View {
    let index = ALL.iter().position(|known| *known == view).unwrap_or_default();
    ALL[(index + if backwards { ALL.len() - 1 } else { 1 }) % ALL.len()]
}

/// For the user.
pub fn name(view: View) -> &'static str {
    match view {
        View::Auto => "auto",
        View::Text | View::Raw => "text",
        View::Json => "JSON",
        View::Hex => "hex",
        View::Cbor => "CBOR",
    }
}

/// The payload in lines of at most `width` columns.
pub fn lines(view: View, payload: &[u8], width: usize) -> Vec<String> {
    let Some(shown) = view.readable(payload) else { return hex(payload, width) };
    let shown = String::from_utf8_lossy(&shown);
    shown.lines().flat_map(|line| wrapped(&clean(&line.replace('\t', "    ")), width)).collect()
}

/// Without characters that do something to a terminal instead of being seen; in one line.
pub fn clean(name: &str) -> String {
    let harmless = text(name.as_bytes());
    let visible = |c: char| match c {
        '\n' | '\t' => ' ',
        // Those that reorder what stands around them.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    String::from_utf8_lossy(&harmless).chars().map(visible).collect()
}

/// A payload in one line.
pub fn preview(payload: &[u8]) -> String {
    if payload.is_empty() {
        return "(empty)".into();
    }
    let shown = if payload.len() <= SHORT {
        View::Auto.readable(payload)
    } else {
        // A character may be cut in two.
        let start = String::from_utf8_lossy(&payload[..SHORT]).into_owned().into_bytes();
        let is_text = std::str::from_utf8(payload).is_ok() && text(&start) == start;
        is_text.then_some(start.into())
    };
    let Some(shown) = shown else {
        let hex = |byte: &u8| format!("{byte:02x}");
        return format!("0x{}", payload.iter().take(PREVIEW_LEN / 2).map(hex).collect::<String>());
    };
    let words = String::from_utf8_lossy(&shown);
    let words: Vec<&str> = words.split_whitespace().collect();
    clean(&words.join(" ")).chars().take(PREVIEW_LEN).collect()
}

/// As many bytes in a line as there is room for: 16, 8 or 4.
fn hex(payload: &[u8], width: usize) -> Vec<String> {
    let width_of = |len: usize| 5 + 2 * len + len / 4 + len;
    let len = [16, 8].into_iter().find(|len| width_of(*len) <= width).unwrap_or(4);
    let seen = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' };
    let line = |(index, bytes): (usize, &[u8])| {
        let mut out = format!("{:04x} ", index * len);
        for at in 0..len {
            out += &bytes.get(at).map_or("  ".into(), |byte| format!("{byte:02x}"));
            out += if at % 4 == 3 { " " } else { "" };
        }
        out.extend(bytes.iter().map(seen));
        out
    };
    payload.chunks(len).enumerate().map(line).collect()
}

/// Cut wherever the line is full.
pub fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = 0;
    for c in line.chars() {
        let columns = c.width().unwrap_or(0);
        if column + columns > width && column > 0 {
            lines.push(String::new());
            column = 0;
        }
        column += columns;
        if let Some(last) = lines.last_mut() {
            last.push(c);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(view: View, payload: &[u8]) -> String {
        lines(view, payload, 32).join("|")
    }

    #[test]
    fn lines_of_each_view() {
        assert_eq!(shown(View::Text, b"a\tb\nc\x1b[1m"), r"a    b|c\x1b[1m");
        assert_eq!(shown(View::Json, br#"{"b":[1]}"#), r#"{|  "b": [|    1|  ]|}"#);
        assert_eq!(shown(View::Cbor, b"\xa1\x61t\x01"), r#"{"t": 1}"#);
        let hex = "0000 30313233 34353637 01234567|0008 00                .";
        assert_eq!(shown(View::Hex, b"01234567\x00"), hex);
        assert_eq!(shown(View::Auto, b"\x00"), "0000 00                .");
        assert_eq!(shown(View::Cbor, b"\xa2"), "0000 a2                .");
        let wide = lines(View::Hex, &[65; 16], 60);
        assert_eq!(wide, ["0000 41414141 41414141 41414141 41414141 AAAAAAAAAAAAAAAA"]);
        assert_eq!(shown(View::Auto, b""), "");
    }

    #[test]
    fn long_lines_are_cut_by_columns() {
        assert_eq!(wrapped("abcde", 2), ["ab", "cd", "e"]);
        assert_eq!(wrapped("漢字x", 3), ["漢", "字x"]);
        assert_eq!(wrapped("漢", 1), ["漢"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn previews_are_one_clean_line() {
        assert_eq!(preview(b"{\n  \"a\": 1\n}"), "{ \"a\": 1 }");
        assert_eq!(preview(b"\x00\xfe"), "0x00fe");
        assert_eq!(preview(b""), "(empty)");
        assert_eq!(preview("é\u{202e}x\ny".as_bytes()), "é\u{fffd}x y");
        assert_eq!(preview(&[b'x'; 5000]).len(), PREVIEW_LEN);
        assert!(preview(&[7; 5000]).starts_with("0x0707"));
    }

    #[test]
    fn views_go_round() {
        let mut view = View::Auto;
        for _ in ALL {
            assert_eq!(turned(turned(view, false), true), view);
            view = turned(view, false);
        }
        assert_eq!(view, View::Auto);
    }
}
