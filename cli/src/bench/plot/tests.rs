//! Pictures are whole files of their kind and show what they should.

use super::super::report::{Distribution, Report, Settings, Timeline, histogram};
use super::*;

fn report(name: &str, factor: u64) -> Report {
    let mut recorded = histogram();
    (0..5000_u64).for_each(|n| {
        recorded.saturating_record(100 * factor + n % 97 + if n % 100 == 0 { 20 * n } else { 0 });
    });
    let settings = Settings {
        scenario: "pairs".into(),
        clients: 10,
        version: 5,
        payload_bytes: 64,
        ..Settings::default()
    };
    let mut report = Report::new(name.into(), settings);
    report.messages.published = Some(5000);
    report.messages.messages_per_s = Some(123_456.0);
    report.messages.latency_us = Some(Distribution::new(&recorded));
    let counts = (0..100).map(|step| 500 * factor + step % 7).collect();
    report.timeline = Timeline { step_s: 0.05, counts };
    report
}

#[test]
fn an_svg_names_its_axes_and_runs() {
    let (a, b) = (report("this & that", 1), report("<other>", 3));
    let text = String::from_utf8(draw(Format::Svg, &[&a, &b]).unwrap()).unwrap();
    for part in [
        "<svg ",
        "Latency by percentile",
        "Distribution of latency",
        "Messages received per second",
        "this &amp; that",
        "&lt;other&gt;",
        "99.9 %",
        "1 ms",
        "20 k",
        "4 s",
    ] {
        assert!(text.contains(part), "{part} is missing");
    }
    assert!(text.trim_end().ends_with("</svg>"));
}

#[test]
fn a_png_has_pixels_of_every_curve() {
    let bytes = draw(Format::Png, &[&report("a", 1), &report("b", 3)]).unwrap();
    let decoder = png::Decoder::new(std::io::Cursor::new(&bytes));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.width, 2400);
    for color in [[0x00, 0x72, 0xb2], [0xd5, 0x5e, 0x00]] {
        assert!(pixels.chunks_exact(3).filter(|pixel| *pixel == color).count() > 500);
    }
}

#[test]
fn a_run_without_figures_can_be_drawn() {
    let empty = Report::new("nothing".into(), Settings::default());
    assert!(draw(Format::Svg, &[&empty]).is_ok());
}

#[test]
fn other_endings_are_refused() {
    let message = Format::of(Path::new("a.jpg")).unwrap_err().message;
    assert!(message.contains(".svg or .png"), "{message}");
}
