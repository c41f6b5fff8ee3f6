//! Where things stand in the picture, and how they look.

use std::ops::Range;

use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::element::Rectangle;
use plotters::prelude::DrawingBackend;
use plotters::series::{AreaSeries, LineSeries};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use super::super::report::Report;
use super::super::table;
use super::panel::{self, Axis, Panel};

/// The family that is registered; SVG readers have one by this name.
pub const FONT: &str = "sans-serif";

const WIDTH: u32 = 1200;
const MARGIN: u32 = 32;
const HEAD: u32 = 100;
const UPPER: u32 = 350;
const LOWER: u32 = 290;
const LINE: u32 = 26;
const FOOT: u32 = 56;

const INK: RGBColor = RGBColor(0x1f, 0x24, 0x2b);
const PALE_INK: RGBColor = RGBColor(0x5c, 0x66, 0x73);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
/// Told apart by those who see few colours, too (Okabe and Ito, 2008).
const COLORS: [RGBColor; super::RUNS_MAX] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x6b, 0x4c, 0x9a),
    RGBColor(0x55, 0x55, 0x55),
];

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
type Area<B> = DrawingArea<B, Shift>;

/// An axis as the library wants it.
struct Scale<'a>(&'a Axis);

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let Range { start, end } = self.range();
        from + ((value - start) / (end - start) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.range.clone()
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.0.ticks.iter().find(|(at, _)| at == value);
        tick.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// A picture of reports, in pixels of which `scale` make one unit.
pub struct Figure<'a> {
    reports: &'a [&'a Report],
    scale: u32,
}

impl<'a> Figure<'a> {
    /// Of at most [`super::RUNS_MAX`] reports.
    pub fn new(reports: &'a [&'a Report], scale: u32) -> Figure<'a> {
        Figure { reports, scale }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        let lines = self.reports.len() as u32 + 1;
        (WIDTH * self.scale, (HEAD + UPPER + LOWER + lines * LINE + FOOT) * self.scale)
    }

    /// Draws all of it.
    pub fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        area.fill(&WHITE)?;
        let (head, rest) = area.split_vertically(self.pixels(HEAD));
        let (upper, rest) = rest.split_vertically(self.pixels(UPPER));
        let (lower, foot) = rest.split_vertically(self.pixels(LOWER));
        self.head(&head)?;
        let (left, right) = upper.split_horizontally(self.pixels(WIDTH / 2));
        self.panel(&left, &panel::percentiles(self.reports))?;
        self.panel(&right, &panel::distribution(self.reports))?;
        self.panel(&lower, &panel::rate(self.reports))?;
        self.foot(&foot)?;
        area.present()
    }

    fn head<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let Some(first) = self.reports.first() else { return Ok(()) };
        let title = match self.reports.len() {
            1 => format!("{}: {}", first.name, first.settings.scenario),
            _ if self.is_same(|report| report.settings.scenario.clone()) => {
                format!("Comparison: {}", first.settings.scenario)
            }
            _ => "Comparison of different scenarios: read with care".into(),
        };
        self.text(area, &title, (MARGIN, 28), 26, INK, FontStyle::Bold)?;
        let subtitle = match self.is_same(table::scenario) {
            true => table::scenario(first),
            false => "runs with different settings, which are named below".into(),
        };
        self.text(area, &subtitle, (MARGIN, 64), 16, PALE_INK, FontStyle::Normal)
    }

    /// Whether this is the same of all reports.
    fn is_same(&self, of: impl Fn(&Report) -> String) -> bool {
        let mut all = self.reports.iter().map(|report| of(report));
        let first = all.next();
        all.all(|other| Some(&other) == first.as_ref())
    }

    fn panel<B: DrawingBackend>(&self, area: &Area<B>, panel: &Panel) -> Drawn<B> {
        self.text(area, &panel.title, (MARGIN, 4), 17, INK, FontStyle::Bold)?;
        let area = area.margin(self.pixels(30), self.pixels(14), self.pixels(16), self.pixels(28));
        let mut chart = ChartBuilder::on(&area)
            .x_label_area_size(self.pixels(50))
            .y_label_area_size(self.pixels(62))
            .build_cartesian_2d(Scale(&panel.x), Scale(&panel.y))?;
        let ink = self.style(13, PALE_INK, FontStyle::Normal);
        chart
            .configure_mesh()
            .bold_line_style(ShapeStyle::from(GRID).stroke_width(self.scale))
            .light_line_style(WHITE.mix(0.0))
            .axis_style(ShapeStyle::from(PALE_INK).stroke_width(self.scale))
            .x_desc(&panel.x.title)
            .label_style(ink.clone())
            .axis_desc_style(ink)
            .x_labels(panel.x.ticks.len())
            .y_labels(panel.y.ticks.len())
            .set_all_tick_mark_size(self.pixels(4))
            .draw()?;
        for curve in &panel.curves {
            let color = color(curve.report);
            let line = ShapeStyle::from(color).stroke_width(2 * self.scale);
            let points = curve.points.iter().copied();
            if panel.filled && self.reports.len() <= 2 {
                chart.draw_series(AreaSeries::new(points.clone(), 0.0, color.mix(0.12)))?;
            }
            chart.draw_series(LineSeries::new(points, line))?;
        }
        Ok(())
    }

    /// A line of figures for each report, which is the legend too, and where it all was measured.
    fn foot<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        const COLUMNS: [(&str, u32); 6] = [
            ("per second", 560),
            ("p50", 680),
            ("p99", 790),
            ("p99.9", 900),
            ("lost", 1000),
            ("CPU of the broker", WIDTH - MARGIN),
        ];
        for (title, right) in COLUMNS {
            self.text_to(area, title, (right, 4), PALE_INK)?;
        }
        for (index, report) in self.reports.iter().enumerate() {
            let top = LINE * (index as u32 + 1) + 4;
            let corner = |x, y| (self.pixels(x), self.pixels(y));
            let mark = [corner(MARGIN, top + 4), corner(MARGIN + 22, top + 9)];
            area.draw(&Rectangle::new(mark, color(index).filled()))?;
            let name = match self.is_same(table::scenario) {
                true => report.name.clone(),
                false => format!("{}: {}", report.name, table::scenario(report)),
            };
            let (name, size) = fitted(&name);
            self.text(area, &name, (MARGIN + 34, top), size, INK, FontStyle::Normal)?;
            for (figure, (_, right)) in figures(report).iter().zip(COLUMNS) {
                self.text_to(area, figure, (right, top), INK)?;
            }
        }
        let top = LINE * (self.reports.len() as u32 + 1) + 16;
        let place = self.reports.first().map(|report| place(report)).unwrap_or_default();
        self.text(area, &place, (MARGIN, top), 13, PALE_INK, FontStyle::Normal)
    }

    fn text<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        text: &str,
        (x, y): (u32, u32),
        size: u32,
        color: RGBColor,
        style: FontStyle,
    ) -> Drawn<B> {
        area.draw_text(text, &self.style(size, color, style), (self.pixels(x), self.pixels(y)))
    }

    /// Text that ends at `right`.
    fn text_to<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        text: &str,
        (right, y): (u32, u32),
        color: RGBColor,
    ) -> Drawn<B> {
        let style = self.style(15, color, FontStyle::Normal).pos(Pos::new(HPos::Right, VPos::Top));
        area.draw_text(text, &style, (self.pixels(right), self.pixels(y)))
    }

    fn style(&self, size: u32, color: RGBColor, style: FontStyle) -> TextStyle<'static> {
        let size = f64::from(size * self.scale);
        let font = (FONT, size).into_font().style(style);
        TextStyle { color: color.to_backend_color(), ..TextStyle::from(font) }
    }

    fn pixels(&self, units: u32) -> i32 {
        (units * self.scale) as i32
    }
}

fn color(report: usize) -> RGBColor {
    COLORS.get(report).copied().unwrap_or(INK)
}

/// A name as long as there is room for, and its size.
fn fitted(name: &str) -> (String, u32) {
    let size = if name.chars().count() > 44 { 12 } else { 15 };
    (name.chars().take(76).collect(), size)
}

/// As in the columns of the foot.
fn figures(report: &Report) -> [String; 6] {
    let unknown = || "-".to_string();
    let times = report.times().0;
    let rate = report.messages.messages_per_s.unwrap_or(report.connections.connections_per_s);
    let lost = match report.messages.lost {
        Some(lost) => lost.to_string(),
        None => report.connections.refused.to_string(),
    };
    let cpu = report.broker_process.cpu_us_per_message;
    [
        format!("{rate:.0}"),
        table::milliseconds(times.p50),
        table::milliseconds(times.p99),
        table::milliseconds(times.p99_9),
        lost,
        cpu.map_or_else(unknown, |us| format!("{us:.2} \u{b5}s each")),
    ]
}

/// Machine, tool and time, in one line.
fn place(report: &Report) -> String {
    let environment = &report.environment;
    let gib = environment.memory_bytes as f64 / (1_u64 << 30) as f64;
    let build = if environment.debug_build { " (debug build)" } else { "" };
    let day = report.started_at.split('T').next().unwrap_or_default();
    format!(
        "{}{build}, {day}; {}, {} CPUs ({}), {gib:.1} GiB",
        environment.tool, environment.os, environment.cpus, environment.cpu
    )
}
