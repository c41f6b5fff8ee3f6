//! The selected topic: figures, properties, payload, and how its values went.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Borders, Paragraph, Sparkline};

use super::bars;
use super::figures::{age, bytes, clock, counted, number, rate};
use super::theme::Theme;
use super::tree::scrollbar;
use crate::shell::layout::inside;
use crate::shell::meter::Meter;
use crate::shell::model::{Focus, Model};
use crate::shell::payload::{self, clean, preview, wrapped};
use crate::shell::topics::{Node, ROOT};
use crate::shell::value::Value;

/// Rows of the curve, if there is room.
const CURVE: u16 = 3;
/// From so many rows on there is room for it.
const ROOMY: u16 = 14;

pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let is_focus = model.focus == Focus::Details;
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.frame(is_focus))
        .title(Line::styled(" Topic ", theme.strong()));
    frame.render_widget(block, area);
    let inner = inside(area);
    if inner.is_empty() || model.selected == ROOT {
        return;
    }
    let node = model.topics.node(model.selected);
    let about = about(model, node, usize::from(inner.width), theme);
    let about_height = (about.len() as u16).min(inner.height);
    let [top, rest] = cut(inner, about_height);
    frame.render_widget(Paragraph::new(about), top);
    let Some(last) = node.last() else { return };
    let lines = model.payload_lines();
    let left = rest.height.saturating_sub(1);
    let wanted = history_height(node, inner.height);
    let history = wanted.min((left / 2).max(left.saturating_sub(lines.len() as u16)));
    let [middle, bottom] = cut(rest, rest.height - history);
    draw_payload(frame, area, middle, model, last, &lines, theme);
    draw_history(frame, bottom, model, node, theme);
}

/// The first `height` rows, and the others.
fn cut(area: Rect, height: u16) -> [Rect; 2] {
    let height = height.min(area.height);
    let rest = Rect { y: area.y + height, height: area.height - height, ..area };
    [Rect { height, ..area }, rest]
}

fn about(model: &Model, node: &Node, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let now_ms = model.now_ms;
    let topic = clean(&model.topics.topic(model.selected));
    let mut lines: Vec<Line<'_>> = wrapped(&topic, width.max(1))
        .into_iter()
        .take(3)
        .map(|part| Line::styled(part, theme.branch()))
        .collect();
    let figures = |meter: &Meter| {
        let per_second = rate(meter.rate(now_ms));
        let rate = if per_second.is_empty() { "0" } else { &per_second };
        let curve: Vec<u64> = meter.seconds(now_ms).collect();
        [
            Span::raw(format!("{}, {rate}/s ", counted(meter.count(), "message"))),
            Span::styled(bars(&curve), theme.figure()),
        ]
    };
    if let Some(last) = node.last() {
        let age = age(now_ms.saturating_sub(last.at_ms));
        let age = if age == "now" { age } else { format!("{age} ago") };
        let mut line = vec![
            Span::styled(clock(last.at_ms, &model.time_zone), theme.figure()),
            Span::raw(format!(" ({age})  QoS {}", last.qos as u8)),
        ];
        if node.is_retained {
            line.push(Span::styled("  retained", theme.retained()));
        }
        lines.push(Line::from(line));
        lines.push(Line::from_iter(figures(&node.own)));
    }
    if !node.children.is_empty() {
        let topics = counted(node.topics as u64, "topic");
        let head = Span::styled("all below: ", theme.faint());
        lines.push(Line::from_iter([head, format!("{topics}, {} retained", node.retained).into()]));
        lines.push(Line::from_iter(
            [Span::raw(" ".repeat(11))].into_iter().chain(figures(&node.all)),
        ));
    }
    for (name, text) in node.last().map(|last| &*last.properties).unwrap_or_default() {
        lines.push(Line::from(vec![
            Span::styled(format!("{name}: "), theme.faint()),
            Span::raw(clean(text)),
        ]));
    }
    lines
}

/// A line across, with a title on it.
fn rule(frame: &mut Frame<'_>, area: Rect, title: Line<'static>, theme: Theme) {
    let block = Block::new().borders(Borders::TOP).border_style(theme.faint()).title(title);
    frame.render_widget(block, Rect { height: area.height.min(1), ..area });
}

fn draw_payload(
    frame: &mut Frame<'_>,
    pane: Rect,
    area: Rect,
    model: &Model,
    last: &Value,
    lines: &[String],
    theme: Theme,
) {
    let mut title = vec![
        Span::styled("Payload ", theme.strong()),
        Span::raw(format!("{}, {} ", payload::name(model.view), bytes(last.len))),
    ];
    if !last.is_whole() {
        let text = format!("(the first {} kept) ", bytes(last.payload.len()));
        title.push(Span::styled(text, theme.warning()));
    }
    rule(frame, area, Line::from(title), theme);
    let [_, text] = cut(area, 1);
    let shown = lines.iter().skip(model.scroll).take(text.height.into());
    let style = if model.colour { theme.value() } else { Style::new() };
    let shown: Vec<Line<'_>> = shown.map(|line| Line::styled(line.as_str(), style)).collect();
    frame.render_widget(Paragraph::new(shown), text);
    // The bar stands on the border of the pane, beside the payload.
    let bar = Rect { y: area.y, height: area.height + 1, ..pane };
    scrollbar(frame, bar.intersection(pane), lines.len(), text.height.into(), model.scroll, theme);
}

/// Title, curve and one row for each value.
fn history_height(node: &Node, pane_height: u16) -> u16 {
    match node.values.len() {
        0 | 1 => 0,
        len => 1 + curve_height(node, pane_height) + (len as u16).min(pane_height),
    }
}

fn curve_height(node: &Node, pane_height: u16) -> u16 {
    let is_number = node.last().is_some_and(|last| last.number().is_some());
    if is_number && pane_height >= ROOMY { CURVE } else { 0 }
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, model: &Model, node: &Node, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let pane_height = inside(super::panes(model.screen, model.focus, model.zoom).details).height;
    let curve = if area.height > CURVE + 1 { curve_height(node, pane_height) } else { 0 };
    let numbers: Vec<f64> =
        node.values.iter().filter_map(Value::number).map(|(number, _)| number).collect();
    let mut title = vec![
        Span::styled("Last ", theme.strong()),
        Span::raw(format!("{} ", counted(node.values.len() as u64, "value"))),
    ];
    let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let max = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if curve > 0 {
        let member = node.last().and_then(Value::number).and_then(|(_, name)| name);
        let member = member.map(|name| format!("{} ", clean(&name))).unwrap_or_default();
        let text = format!("{member}{} to {} ", number(min), number(max));
        title.push(Span::styled(text, theme.figure()));
    }
    rule(frame, area, Line::from(title), theme);
    let [_, rest] = cut(area, 1);
    let [top, rows] = cut(rest, curve);
    if curve > 0 {
        draw_curve(frame, top, &numbers, min, max, theme);
    }
    let newest_first = node.values.iter().rev().take(rows.height.into());
    let lines: Vec<Line<'_>> =
        newest_first.map(|value| history_line(value, model, theme)).collect();
    frame.render_widget(Paragraph::new(lines), rows);
}

fn draw_curve(
    frame: &mut Frame<'_>,
    area: Rect,
    numbers: &[f64],
    min: f64,
    max: f64,
    theme: Theme,
) {
    let skipped = numbers.len().saturating_sub(area.width.into());
    let steps = f64::from(area.height) * 8.0;
    let height = |number: &f64| match max > min {
        // The lowest value is to be seen as well.
        true => 1 + ((number - min) / (max - min) * (steps - 1.0)).round() as u64,
        false => (steps / 2.0) as u64,
    };
    let data: Vec<u64> = numbers[skipped..].iter().map(height).collect();
    let curve = Sparkline::default().data(data).max(steps as u64).style(theme.figure());
    frame.render_widget(curve, area.inner(Margin::new(0, 0)));
}

fn history_line(value: &Value, model: &Model, theme: Theme) -> Line<'static> {
    let mark = if value.retain { "R " } else { "  " };
    Line::from(vec![
        Span::styled(clock(value.at_ms, &model.time_zone), theme.faint()),
        Span::styled(format!(" {mark}"), theme.retained()),
        Span::styled(preview(&value.payload), theme.value()),
    ])
}
