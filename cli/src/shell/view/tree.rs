//! The tree of topics: names, last values, rates and ages.

use ratatui::Frame;
use ratatui::layout::{Alignment, Margin, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, BorderType, Paragraph, Scrollbar, ScrollbarOrientation, ScrollbarState,
};

use super::figures::{age, counted, rate};
use super::theme::Theme;
use crate::shell::layout::inside;
use crate::shell::model::{Focus, Model};
use crate::shell::payload::{clean, preview};
use crate::shell::rows::Row;
use crate::shell::topics::ROOT;

/// Columns of rate, age and marks, with the spaces before them.
const RATE: usize = 6;
const AGE: usize = 5;
const MARKS: usize = 3;

/// Levels that are told apart by indentation: deeper ones are to be seen as well.
const INDENT_MAX: usize = 10;

/// A value that came so shortly ago stands out.
const FRESH_MS: u64 = 700;

/// How a row is divided.
struct Columns {
    /// Indentation and name.
    name: usize,
    value: usize,
    rate: usize,
    age: usize,
    marks: usize,
}

impl Columns {
    /// What does not fit goes: ages first, then rates.
    fn new(width: usize, names: usize) -> Columns {
        let marks = if width >= 16 { MARKS } else { 0 };
        let rate = if width >= 24 { RATE } else { 0 };
        let age = if width >= 32 { AGE } else { 0 };
        let left = width - marks - rate - age;
        let name = if left < 12 { left } else { (names + 1).min(left * 6 / 10) };
        Columns { name, value: left - name, rate, age, marks }
    }
}

pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let is_focus = model.focus == Focus::Topics;
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.frame(is_focus))
        .title(title(model, theme));
    let area_inside = inside(area);
    let height = usize::from(area_inside.height);
    let width = usize::from(area_inside.width);
    let shown: Vec<&Row> = model.rows.iter().skip(model.offset).take(height).collect();
    let names = shown.iter().map(|row| Span::raw(name(model, row)).width()).max();
    let columns = Columns::new(width, names.unwrap_or_default());
    let block = match columns.age {
        0 => block,
        _ => {
            let heads = Line::styled("msg/s  age RQ", theme.faint());
            block.title_top(heads.alignment(Alignment::Right))
        }
    };
    frame.render_widget(block, area);
    if shown.is_empty() {
        return frame.render_widget(nothing(model, theme), area_inside);
    }
    for (y, row) in (area_inside.y..).zip(shown) {
        let at = Rect { y, height: 1, ..area_inside };
        let mut line = Paragraph::new(line(model, row, &columns, theme));
        if row.id == model.selected {
            line = line.style(theme.selected(is_focus));
        }
        frame.render_widget(line, at);
    }
    scrollbar(frame, area, model.rows.len(), height, model.offset, theme);
}

fn title(model: &Model, theme: Theme) -> Line<'static> {
    let mut title = vec![Span::styled(" Topics ", theme.strong())];
    if model.wanted.retained_only {
        title.push(Span::styled("retained only ", theme.warning()));
    }
    if !model.wanted.search.is_empty() {
        let text = format!("/{} ", clean(&model.wanted.search));
        title.push(Span::styled(text, theme.warning()));
    }
    Line::from(title)
}

/// Why there is nothing to see.
fn nothing(model: &Model, theme: Theme) -> Paragraph<'static> {
    let filters: Vec<String> = model.filters().iter().map(|filter| clean(filter)).collect();
    let lines = if model.topics.node(ROOT).topics > 0 {
        let esc =
            if model.wanted.search.is_empty() { "r shows all" } else { "Esc ends the search" };
        [format!("no such topic; {esc}"), String::new()]
    } else if filters.is_empty() {
        ["subscribed to nothing".into(), "s subscribes".into()]
    } else {
        let head = format!("no message yet on {}", filters.join(", "));
        [head, "s subscribes to more, such as $SYS/#".into()]
    };
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
    Paragraph::new(lines).style(theme.faint()).alignment(Alignment::Center)
}

/// Indentation, whether it is open, and the level's name.
fn name(model: &Model, row: &Row) -> String {
    let node = model.topics.node(row.id);
    let mark = match (node.children.is_empty(), row.is_open) {
        (true, _) => "  ",
        (false, true) => "▾ ",
        (false, false) => "▸ ",
    };
    let name = if node.name.is_empty() { "(empty)".into() } else { clean(&node.name) };
    format!("{}{mark}{name}", "  ".repeat(row.depth.min(INDENT_MAX)))
}

fn line(model: &Model, row: &Row, columns: &Columns, theme: Theme) -> Line<'static> {
    let node = model.topics.node(row.id);
    let is_branch = !node.children.is_empty();
    let name_style = if is_branch { theme.branch() } else { Style::new() };
    let (value, value_style) = match node.last() {
        Some(last) if model.now_ms.saturating_sub(last.at_ms) < FRESH_MS => {
            (preview(&last.payload), theme.fresh())
        }
        Some(last) => (preview(&last.payload), theme.value()),
        None => (counted(node.topics as u64, "topic"), theme.faint()),
    };
    let mut spans = vec![
        Span::styled(fit(&name(model, row), columns.name), name_style),
        Span::styled(fit(&value, columns.value), value_style),
    ];
    if columns.rate > 0 {
        let text = format!("{:>1$}", rate(node.all.rate(model.now_ms)), columns.rate);
        spans.push(Span::styled(text, theme.figure()));
    }
    if columns.age > 0 {
        let age = node.last().map(|last| age(model.now_ms.saturating_sub(last.at_ms)));
        let text = format!("{:>1$}", age.unwrap_or_default(), columns.age);
        spans.push(Span::styled(text, theme.faint()));
    }
    if columns.marks > 0 {
        let qos = node.last().map_or(" ".into(), |last| (last.qos as u8).to_string());
        let retained = if node.is_retained { "R" } else { " " };
        spans.push(Span::styled(format!(" {retained}"), theme.retained()));
        spans.push(Span::styled(qos, theme.faint()));
    }
    Line::from(spans)
}

/// The text in exactly so many columns, cut with `…` or filled up.
fn fit(text: &str, width: usize) -> String {
    let columns = |text: &str| Span::raw(text.to_string()).width();
    // A space is to be between this column and the next.
    let room = width.saturating_sub(1);
    let mut fitted = text.to_string();
    if columns(&fitted) > room {
        while columns(&fitted) > room.saturating_sub(1) && fitted.pop().is_some() {}
        if room > 0 {
            fitted.push('…');
        }
    }
    let missing = width.saturating_sub(columns(&fitted));
    fitted + &" ".repeat(missing)
}

/// Where the shown part is, on the right border.
pub fn scrollbar(
    frame: &mut Frame<'_>,
    area: Rect,
    len: usize,
    shown: usize,
    offset: usize,
    theme: Theme,
) {
    if len <= shown || area.height < 4 {
        return;
    }
    let bar = Scrollbar::new(ScrollbarOrientation::VerticalRight)
        .begin_symbol(None)
        .end_symbol(None)
        .track_symbol(None)
        .thumb_symbol("┃")
        .thumb_style(theme.frame(true));
    let mut state = ScrollbarState::new(len - shown).position(offset);
    let area = area.inner(Margin { horizontal: 0, vertical: 1 });
    frame.render_stateful_widget(bar, area, &mut state);
}
