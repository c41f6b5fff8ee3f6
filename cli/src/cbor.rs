//! CBOR as people read it, in diagnostic notation (RFC 8949, section 8), and as it is written.

use std::convert::Infallible;
use std::fmt::Write;

use minicbor::Encoder;
use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use serde_json::Value;

use crate::lines::quoted;

/// More levels are not shown: each takes a part of the stack.
const DEPTH_MAX: usize = 64;

/// One item in diagnostic notation; none if it is not exactly one, or nested too deep.
pub fn diagnostic(payload: &[u8]) -> Option<String> {
    let mut writer = Writer { decoder: Decoder::new(payload), out: String::new() };
    writer.item(0).ok()?;
    (writer.decoder.position() == payload.len()).then_some(writer.out)
}

/// A JSON value as CBOR (RFC 8949, section 6.2).
pub fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes everything, and every JSON value is one of CBOR.
    let _ = put(&mut Encoder::new(&mut bytes), value);
    bytes
}

fn put(
    out: &mut Encoder<&mut Vec<u8>>,
    value: &Value,
) -> Result<(), minicbor::encode::Error<Infallible>> {
    match value {
        Value::Null => out.null()?,
        Value::Bool(yes) => out.bool(*yes)?,
        Value::String(text) => out.str(text)?,
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(natural), ..) => out.u64(natural)?,
            (_, Some(integer), _) => out.i64(integer)?,
            (.., float) => return put_float(out, float.unwrap_or(f64::NAN)),
        },
        Value::Array(items) => {
            out.array(items.len() as u64)?;
            return items.iter().try_for_each(|item| put(out, item));
        }
        Value::Object(pairs) => {
            out.map(pairs.len() as u64)?;
            for (key, value) in pairs {
                out.str(key)?;
                put(out, value)?;
            }
            return Ok(());
        }
    };
    Ok(())
}

/// In the fewest bytes that keep its value (RFC 8949, section 4.2.1).
fn put_float(
    out: &mut Encoder<&mut Vec<u8>>,
    value: f64,
) -> Result<(), minicbor::encode::Error<Infallible>> {
    let single = value as f32;
    if f64::from(single) != value {
        return out.f64(value).map(drop);
    }
    let mut half = Vec::new();
    Encoder::new(&mut half).f16(single)?;
    match Decoder::new(&half).f16() {
        Ok(read) if read == single => out.f16(single).map(drop),
        _ => out.f32(single).map(drop),
    }
}

struct Writer<'a> {
    decoder: Decoder<'a>,
    out: String,
}

impl Writer<'_> {
    fn item(&mut self, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::message("nested too deep"));
        }
        match self.decoder.datatype()? {
            Type::Array | Type::ArrayIndef => {
                let len = self.decoder.array()?;
                self.members(len, ['[', ']'], |writer| writer.item(depth + 1))
            }
            Type::Map | Type::MapIndef => {
                let len = self.decoder.map()?;
                self.members(len, ['{', '}'], |writer| {
                    writer.item(depth + 1)?;
                    writer.out.push_str(": ");
                    writer.item(depth + 1)
                })
            }
            Type::Tag => {
                let tag = self.decoder.tag()?;
                self.put(format_args!("{tag}("));
                self.item(depth + 1)?;
                self.out.push(')');
                Ok(())
            }
            kind => self.scalar(kind),
        }
    }

    /// `len` members, or as many as come before a break.
    fn members(
        &mut self,
        len: Option<u64>,
        [open, close]: [char; 2],
        mut member: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        if len.is_none() {
            self.out.push_str("_ ");
        }
        for index in 0_u64.. {
            match len {
                Some(len) if index == len => break,
                None if self.decoder.datatype()? == Type::Break => {
                    self.decoder.skip()?;
                    break;
                }
                _ => {}
            }
            if index > 0 {
                self.out.push_str(", ");
            }
            member(self)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn scalar(&mut self, kind: Type) -> Result<(), Error> {
        match kind {
            Type::Bool => {
                let value = self.decoder.bool()?;
                self.put(format_args!("{value}"));
            }
            Type::Null => {
                self.decoder.null()?;
                self.out.push_str("null");
            }
            Type::Undefined => {
                self.decoder.undefined()?;
                self.out.push_str("undefined");
            }
            Type::Simple => {
                let value = self.decoder.simple()?;
                self.put(format_args!("simple({value})"));
            }
            Type::F16 | Type::F32 => {
                let value = self.decoder.f32()?;
                self.float(f64::from(value), &format!("{value:?}"));
            }
            Type::F64 => {
                let value = self.decoder.f64()?;
                self.float(value, &format!("{value:?}"));
            }
            Type::Bytes | Type::BytesIndef | Type::String | Type::StringIndef => {
                self.string(kind)?;
            }
            Type::Break | Type::Unknown(_) => return Err(Error::type_mismatch(kind)),
            _ => {
                let value = self.decoder.int()?;
                self.put(format_args!("{value}"));
            }
        }
        Ok(())
    }

    fn string(&mut self, kind: Type) -> Result<(), Error> {
        let shown = match kind {
            Type::Bytes => hexadecimal(self.decoder.bytes()?),
            Type::String => quoted(self.decoder.str()?),
            Type::BytesIndef => {
                let chunks = self.decoder.bytes_iter()?;
                in_chunks(chunks.map(|chunk| chunk.map(hexadecimal)))?
            }
            _ => {
                let chunks = self.decoder.str_iter()?;
                in_chunks(chunks.map(|chunk| chunk.map(quoted)))?
            }
        };
        self.out.push_str(&shown);
        Ok(())
    }

    /// `shown` has the shortest digits for the width that the float came in.
    fn float(&mut self, value: f64, shown: &str) {
        self.out.push_str(match value {
            value if value.is_nan() => "NaN",
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => shown,
        });
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(text);
    }
}

fn in_chunks(chunks: impl Iterator<Item = Result<String, Error>>) -> Result<String, Error> {
    let chunks: Vec<String> = chunks.collect::<Result<_, _>>()?;
    Ok(format!("(_ {})", chunks.join(", ")))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("h'{digits}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_what_it_says() {
        let text = r#"{"a":[1,-2,2.5,null,true],"b":"c"}"#;
        let bytes = encoded(&serde_json::from_str(text).unwrap());
        let notation = diagnostic(&bytes).unwrap();
        assert_eq!(notation.replace(' ', ""), text);
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    /// Of appendix A of RFC 8949.
    #[test]
    fn examples_of_the_standard() {
        for (hex, shown) in [
            ("00", "0"),
            ("3863", "-100"),
            ("1bffffffffffffffff", "18446744073709551615"),
            ("3bffffffffffffffff", "-18446744073709551616"),
            ("f93e00", "1.5"),
            ("fb3ff199999999999a", "1.1"),
            ("fa47c35000", "100000.0"),
            ("f97c00", "Infinity"),
            ("fbfff0000000000000", "-Infinity"),
            ("f97e00", "NaN"),
            ("f4", "false"),
            ("f6", "null"),
            ("f7", "undefined"),
            ("f0", "simple(16)"),
            ("c11a514b67b0", "1(1363896240)"),
            ("4401020304", "h'01020304'"),
            ("62225c", r#""\"\\""#),
            ("62c3bc", "\"\u{fc}\""),
            ("8301820203820405", "[1, [2, 3], [4, 5]]"),
            ("a26161016162820203", r#"{"a": 1, "b": [2, 3]}"#),
            ("5f42010243030405ff", "(_ h'0102', h'030405')"),
            ("7f657374726561646d696e67ff", r#"(_ "strea", "ming")"#),
            ("9f018202039f0405ffff", "[_ 1, [2, 3], [_ 4, 5]]"),
            ("bf6346756ef563416d7421ff", r#"{_ "Fun": true, "Amt": -2}"#),
            ("80", "[]"),
            ("a0", "{}"),
        ] {
            assert_eq!(diagnostic(&bytes(hex)).as_deref(), Some(shown), "{hex}");
        }
    }

    #[test]
    fn what_is_not_one_item_is_none() {
        // None, two, torn, a break alone, no UTF-8, a count without members.
        for hex in ["", "0102", "8201", "a26161", "ff", "61ff", "9f01", "9bffffffffffffffff", "1c"]
        {
            assert_eq!(diagnostic(&bytes(hex)), None, "{hex}");
        }
        let nested = |depth| [vec![0x81; depth], vec![0]].concat();
        assert!(diagnostic(&nested(DEPTH_MAX)).is_some());
        assert_eq!(diagnostic(&nested(DEPTH_MAX + 1)), None);
        assert_eq!(diagnostic(&nested(1_000_000)), None);
    }
}
