//! What the diagrams show: curves and axes, computed from reports.

use std::ops::Range;

use super::super::report::{Distribution, Report};

/// One diagram.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub curves: Vec<Curve>,
    /// Whether the area below a curve is tinted.
    pub filled: bool,
}

/// An axis, linear in its own unit; a logarithm was taken before.
#[derive(Debug)]
pub struct Axis {
    pub title: String,
    pub range: Range<f64>,
    pub ticks: Vec<(f64, String)>,
}

/// The curve of one report, by its place in the list.
#[derive(Debug)]
pub struct Curve {
    pub report: usize,
    pub points: Vec<(f64, f64)>,
}

/// Steps of a histogram for each power of ten; see `Distribution::new`.
const STEPS: f64 = 20.0;

/// Within which time how many of all were.
pub fn percentiles(reports: &[&Report]) -> Panel {
    let x_max = reports
        .iter()
        .map(|report| (report.times().0.count.max(1) as f64).log10())
        .fold(1.0, f64::max)
        .min(6.0);
    let place = |percentile: f64| -(1.0 - percentile / 100.0).max(1e-9).log10();
    let curve = |(index, report): (usize, &&Report)| {
        let times = report.times().0;
        // Beyond what so many messages can tell there is only the maximum.
        let end = (times.count.max(1) as f64).log10().min(x_max);
        let mut points: Vec<(f64, f64)> = times
            .percentiles
            .iter()
            .map(|(percentile, us)| (place(*percentile).min(end), log_us(*us)))
            .collect();
        if points.is_empty() {
            points.push((0.0, 0.0));
        }
        Curve { report: index, points }
    };
    let all_ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
    let ticks = all_ticks
        .into_iter()
        .map(|percentile| (place(percentile), format!("{percentile} %")))
        .filter(|(at, _)| *at <= x_max + 1e-6)
        .collect();
    let all = |report: &&Report| (log_us(report.times().0.min), log_us(report.times().0.max));
    Panel {
        title: format!("{} by percentile", capital(what(reports))),
        x: Axis { title: "of all within".into(), range: 0.0..x_max, ticks },
        y: time_axis(String::new(), reports.iter().map(all)),
        curves: reports.iter().enumerate().map(curve).collect(),
        filled: false,
    }
}

/// How many of all took how long.
pub fn distribution(reports: &[&Report]) -> Panel {
    let curves: Vec<Curve> = reports
        .iter()
        .enumerate()
        .map(|(index, report)| Curve { report: index, points: steps(report.times().0) })
        .collect();
    let highest =
        curves.iter().flat_map(|curve| &curve.points).map(|(_, y)| *y).fold(0.0, f64::max);
    let ends =
        curves.iter().filter_map(|curve| Some((curve.points.first()?.0, curve.points.last()?.0)));
    Panel {
        title: format!("Distribution of {}", what(reports)),
        x: time_axis(what(reports).into(), ends),
        y: count_axis(String::new(), highest, " %"),
        curves,
        filled: true,
    }
}

/// Messages received, or connections made, as time passed.
pub fn rate(reports: &[&Report]) -> Panel {
    let curve = |(index, report): (usize, &&Report)| {
        let timeline = &report.timeline;
        let step_s = timeline.step_s;
        let whole = timeline.counts.len().saturating_sub(1);
        // The last step is cut short by the end, unless it is all there is.
        let counts = timeline.counts.iter().take(whole.max(1)).enumerate();
        let points = counts
            .map(|(step, count)| ((step as f64 + 0.5) * step_s, *count as f64 / step_s))
            .collect();
        Curve { report: index, points }
    };
    let curves: Vec<Curve> = reports.iter().enumerate().map(curve).collect();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let highest = points().map(|(_, y)| *y).fold(0.0, f64::max);
    let latest = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let about = match reports.first() {
        Some(report) if report.is_about_connections() => "Connections per second",
        _ => "Messages received per second",
    };
    Panel {
        title: about.into(),
        x: count_axis("time".into(), latest, " s"),
        y: count_axis(String::new(), highest, ""),
        curves,
        filled: true,
    }
}

/// What the reports are about, if it is the same.
fn what(reports: &[&Report]) -> &'static str {
    reports.first().map_or("latency", |report| report.times().1)
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The outline of a histogram, in percent of all.
fn steps(times: &Distribution) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut end = None;
    for (upper_us, count) in &times.histogram {
        let upper = log_us(*upper_us);
        let lower = end.filter(|end| upper - end < 1.5 / STEPS).unwrap_or(upper - 1.0 / STEPS);
        if end != Some(lower) {
            points.extend(end.map(|end| (end, 0.0)));
            points.push((lower, 0.0));
        }
        let share = *count as f64 * 100.0 / times.count.max(1) as f64;
        points.extend([(lower, share), (upper, share)]);
        end = Some(upper);
    }
    points.extend(end.map(|end| (end, 0.0)));
    points
}

fn log_us(us: u64) -> f64 {
    (us.max(1) as f64).log10()
}

/// A logarithmic axis from the least to the greatest, with a little room.
fn time_axis(title: String, ends: impl Iterator<Item = (f64, f64)>) -> Axis {
    let (low, high) =
        ends.fold((f64::MAX, f64::MIN), |(low, high), (from, to)| (low.min(from), high.max(to)));
    let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
    // At least a power of ten, so that noise does not look like much.
    let middle = f64::midpoint(low, high);
    let (low, high) = (low.min(middle - 0.5), high.max(middle + 0.5));
    let range = (low - 0.1)..(high + 0.1);
    let decades = high - low;
    let marks: &[u32] = if decades > 3.5 {
        &[1]
    } else if decades > 1.7 {
        &[1, 3]
    } else {
        &[1, 2, 5]
    };
    let ticks = (-1..8)
        .flat_map(|power| marks.iter().map(move |mark| (power, *mark)))
        .map(|(power, mark)| f64::from(mark) * 10_f64.powi(power))
        .map(|us| (us.log10(), time(us)))
        .filter(|(at, _)| range.contains(at))
        .collect();
    Axis { title, range, ticks }
}

/// "100 us", "1 ms", "10 s".
fn time(us: f64) -> String {
    match us {
        us if us < 999.5 => format!("{} \u{b5}s", short(us)),
        us if us < 999_500.0 => format!("{} ms", short(us / 1e3)),
        us => format!("{} s", short(us / 1e6)),
    }
}

/// From 0 to the greatest, with four to eight ticks at round numbers.
fn count_axis(title: String, highest: f64, unit: &str) -> Axis {
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let rough = highest / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * power >= rough);
    let step = round.unwrap_or(10.0) * power;
    let ticks = (0..12)
        .map(|index| f64::from(index) * step)
        .take_while(|at| *at <= highest * 1.05)
        .map(|at| (at, format!("{}{unit}", amount(at))))
        .collect();
    Axis { title, range: 0.0..highest * 1.05, ticks }
}

/// "500", "20 k", "1.5 M".
fn amount(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{} M", short(value / 1e6)),
        value if value >= 9_999.5 => format!("{} k", short(value / 1e3)),
        value => short(value),
    }
}

/// Without digits that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_have_units() {
        let labels = |axis: Axis| axis.ticks.into_iter().map(|(_, label)| label).collect();
        let counts: Vec<String> = labels(count_axis(String::new(), 1_234_567.0, ""));
        assert_eq!(counts, ["0", "500 k", "1 M"]);
        let seconds: Vec<String> = labels(count_axis(String::new(), 4.95, " s"));
        assert_eq!(seconds, ["0 s", "1 s", "2 s", "3 s", "4 s", "5 s"]);
        let times: Vec<String> = labels(time_axis(String::new(), [(1.0, 4.0)].into_iter()));
        assert_eq!(
            times,
            ["10 \u{b5}s", "30 \u{b5}s", "100 \u{b5}s", "300 \u{b5}s", "1 ms", "3 ms", "10 ms"]
        );
        let none: Vec<String> = labels(time_axis(String::new(), [].into_iter()));
        assert!(!none.is_empty());
    }

    #[test]
    fn a_histogram_falls_to_zero_where_nothing_was() {
        let times = Distribution {
            count: 4,
            histogram: vec![(100, 1), (112, 2), (1000, 1)],
            ..Distribution::default()
        };
        let points = steps(&times);
        let heights: Vec<f64> = points.iter().map(|(_, height)| *height).collect();
        assert_eq!(heights, [0.0, 25.0, 25.0, 50.0, 50.0, 0.0, 0.0, 25.0, 25.0, 0.0]);
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{points:?}");
    }
}
