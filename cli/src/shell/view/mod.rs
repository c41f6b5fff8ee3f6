//! Draws the model: header, tree, details, footer, and the dialog in front of them.

mod details;
mod dialogs;
mod figures;
mod theme;
mod tree;

use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::symbols::bar::NINE_LEVELS;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::dialog::Dialog;
use super::layout::panes;
use super::model::{Connection, Model};
use super::payload::clean;
use super::topics::ROOT;
use figures::{counted, grouped, rate};
use theme::Theme;

/// What the footer offers while there is nothing else to say, the most important first.
const HINTS: &[(&str, &str)] = &[
    ("?", "help"),
    ("/", "search"),
    ("p", "publish"),
    ("s", "subscriptions"),
    ("r", "retained"),
    ("space", "pause"),
    ("q", "quit"),
    ("v", "view"),
    ("d", "remove retained"),
    ("i", "events"),
    ("z", "zoom"),
];

/// Draws everything. The model is to be refreshed before.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let theme = Theme::new(model.colour);
    let panes = panes(frame.area(), model.focus, model.zoom);
    header(frame, panes.header, model, theme);
    tree::draw(frame, panes.topics, model, theme);
    details::draw(frame, panes.details, model, theme);
    footer(frame, panes.footer, model, theme);
    if let Some(dialog) = &model.dialog {
        dialogs::draw(frame, dialog, model, theme);
    }
}

fn header(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let all = &model.topics.node(ROOT).all;
    let mut right = Vec::new();
    if let Some(missed) = model.paused {
        let text = format!(" PAUSED, {} missed ", grouped(missed));
        right.push(Span::styled(text, theme.warning()));
    }
    let curve: Vec<u64> = all.seconds(model.now_ms).collect();
    right.push(Span::styled(format!(" {} ", bars(&curve)), theme.figure()));
    let per_second = rate(all.rate(model.now_ms));
    let per_second = if per_second.is_empty() { "0" } else { &per_second };
    right.push(Span::styled(format!("{per_second} msg/s"), theme.figure()));
    if area.width >= 72 {
        let topics = model.topics.node(ROOT).topics;
        right.push(Span::raw(format!("  {}", counted(topics as u64, "topic"))));
    }
    if area.width >= 96 {
        right.push(Span::raw(format!("  {}", counted(all.count(), "message"))));
    }
    right.push(Span::raw(" "));
    let right = Line::from(right);
    let width = (right.width() as u16).min(area.width);
    let left = Rect { width: area.width - width, ..area };
    let mut line = vec![Span::styled(" whimbrel ", theme.strong())];
    line.extend(connection(model, theme));
    frame.render_widget(Paragraph::new(Line::from(line)), left);
    let at = Rect { x: area.x + left.width, width, ..area };
    frame.render_widget(Paragraph::new(right).alignment(Alignment::Right), at);
}

fn connection(model: &Model, theme: Theme) -> [Span<'static>; 2] {
    let broker = clean(&model.broker);
    match &model.connection {
        Connection::Connecting => {
            [Span::styled("◌ ", theme.warning()), Span::raw(format!("connecting to {broker}"))]
        }
        Connection::Connected => [Span::styled("● ", theme.good()), Span::raw(broker)],
        Connection::Waiting { until_ms, why } => {
            let left_s = until_ms.saturating_sub(model.now_ms).div_ceil(1000);
            let text = format!("reconnecting in {left_s} s: {}", clean(why));
            [Span::styled("○ ", theme.bad()), Span::styled(text, theme.warning())]
        }
        Connection::Closed { why } => {
            [Span::styled("✕ ", theme.bad()), Span::styled(clean(why), theme.bad())]
        }
    }
}

/// A curve one row high.
pub fn bars(values: &[u64]) -> String {
    let set = NINE_LEVELS;
    let levels = [
        set.empty,
        set.one_eighth,
        set.one_quarter,
        set.three_eighths,
        set.half,
        set.five_eighths,
        set.three_quarters,
        set.seven_eighths,
        set.full,
    ];
    let max = values.iter().copied().max().unwrap_or_default().max(1);
    values.iter().map(|value| levels[(value * 8).div_ceil(max) as usize]).collect()
}

fn footer(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    if let Some(Dialog::Search(input)) = &model.dialog {
        let found = counted(model.rows.len() as u64, "row");
        let head = Line::from(vec![Span::styled(" search: ", theme.key())]);
        let tail = format!(" {found}; Enter keeps, Esc ends ");
        let tail = Line::styled(tail, theme.faint());
        return dialogs::input(frame, area, head, input, tail, true);
    }
    let line = if let Some(notice) = model.notice() {
        let style = if notice.is_error { theme.bad() } else { theme.good() };
        Line::styled(format!(" {}", clean(&notice.text)), style)
    } else if model.topics.untracked() > 0 {
        let (limit, untracked) = (model.topics.limits().nodes, model.topics.untracked());
        let text = format!(
            " tree full ({}): {} not shown; x forgets all, s subscribes to less",
            grouped(limit as u64),
            counted(untracked, "message"),
        );
        Line::styled(text, theme.warning())
    } else if model.topics.is_short() {
        let mib = model.topics.limits().bytes >> 20;
        let text = format!(" values use {mib} MiB, all that is allowed: fewer are kept; x forgets");
        Line::styled(text, theme.warning())
    } else {
        hints(area.width, theme)
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn hints(width: u16, theme: Theme) -> Line<'static> {
    let mut line = Line::default();
    for (key, what) in HINTS {
        let spans = [Span::styled(format!(" {key}"), theme.key()), Span::raw(format!(" {what} "))];
        let more: usize = spans.iter().map(Span::width).sum();
        if line.width() + more <= usize::from(width) {
            line.extend(spans);
        }
    }
    line
}
