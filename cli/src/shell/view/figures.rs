//! Numbers and times, short enough for a column.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `3` and `things`, or `1` and `thing`.
pub fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// At most five characters: `0.4`, `12`, `3.4k`, `120k`, `1.2M`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r < 0.05 => String::new(),
        r if r < 9.95 => format!("{r:.1}"),
        r if r < 999.5 => format!("{r:.0}"),
        r if r < 9950.0 => format!("{:.1}k", r / 1e3),
        r if r < 999_500.0 => format!("{:.0}k", r / 1e3),
        r => format!("{:.1}M", r / 1e6),
    }
}

/// At most four characters: `now`, `12s`, `5m`, `3h`, `12d`.
pub fn age(ms: u64) -> String {
    match ms / 1000 {
        0 => "now".into(),
        s @ 1..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", (s / 86_400).min(999)),
    }
}

/// `1.5 KiB`.
pub fn bytes(len: usize) -> String {
    match len {
        0..1024 => counted(len as u64, "byte"),
        1024..1_048_576 => format!("{:.1} KiB", len as f64 / 1024.0),
        _ => format!("{:.1} MiB", len as f64 / 1_048_576.0),
    }
}

/// Four significant digits or so: for the bounds of a curve.
pub fn number(number: f64) -> String {
    match number.abs() {
        n if n >= 1e7 || (n < 1e-3 && n > 0.0) => format!("{number:.3e}"),
        n if n >= 1000.0 || number.fract() == 0.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The time of day, with milliseconds.
pub fn clock(at_ms: u64, zone: &TimeZone) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let format = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string();
    at.map(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([grouped(0), grouped(999), grouped(1000)].join(" "), "0 999 1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!([counted(1, "topic"), counted(2, "topic")].join(" "), "1 topic 2 topics");
        let rates = [0.0, 0.04, 0.4, 9.96, 123.4, 3456.0, 99_499.0, 1_234_567.0].map(rate);
        assert_eq!(rates.join(" "), "  0.4 10 123 3.5k 99k 1.2M");
        let ages = [0, 999, 1000, 59_999, 60_000, 3_600_000, 86_400_000].map(age);
        assert_eq!(ages.join(" "), "now now 1s 59s 1m 1h 1d");
        let numbers = [0.0, 21.456, 5.0, -3.25, 1234.5, 2e9, 1e-5].map(number);
        assert_eq!(numbers.join(" "), "0 21.5 5 -3.25 1234 2.000e9 1.000e-5");
        assert_eq!([bytes(1), bytes(2048)].join(" "), "1 byte 2.0 KiB");
    }

    #[test]
    fn times_of_day() {
        assert_eq!(clock(1_588_799_520_120, &TimeZone::UTC), "21:12:00.120");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(clock(1_588_799_520_120, &east), "23:12:00.120");
        assert_eq!(clock(u64::MAX, &TimeZone::UTC), "");
    }
}
