//! What stands in front of the tree.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Wrap};
use tui_input::Input;

use super::figures::{clock, counted};
use super::theme::Theme;
use crate::shell::dialog::{Dialog, PublishForm, SubscriptionForm};
use crate::shell::keys::HELP;
use crate::shell::layout::inside;
use crate::shell::model::Model;
use crate::shell::payload::{clean, wrapped};

pub fn draw(frame: &mut Frame<'_>, dialog: &Dialog, model: &Model, theme: Theme) {
    match dialog {
        Dialog::Help => help(frame, theme),
        Dialog::Events => events(frame, model, theme),
        // It stands in the footer.
        Dialog::Search(_) => {}
        Dialog::Publish(form) => publish(frame, form, theme),
        Dialog::Subscriptions(form) => subscriptions(frame, form, model, theme),
        Dialog::Remove(topics) => remove(frame, topics, theme),
    }
}

/// An empty frame in the middle of the screen; what is inside it.
fn window(
    frame: &mut Frame<'_>,
    [width, height]: [u16; 2],
    title: &'static str,
    keys: &'static str,
    theme: Theme,
) -> Rect {
    let [area] =
        Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Length(width)]).flex(Flex::Center).areas(area);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.frame(true))
        .title(Line::styled(format!(" {title} "), theme.strong()))
        .title_bottom(Line::styled(format!(" {keys} "), theme.faint()).right_aligned());
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    inside(area)
}

fn help(frame: &mut Frame<'_>, theme: Theme) {
    let height = HELP.len() as u16 + 4;
    let area = window(frame, [74, height], "Keys", "any key closes", theme);
    let key = |(keys, what): &(&str, &'static str)| {
        let keys = format!("{keys:>24}  ");
        Line::from(vec![Span::styled(keys, theme.key()), Span::raw(*what)])
    };
    let mut lines: Vec<Line<'_>> = HELP.iter().map(key).collect();
    lines.push(Line::default());
    let marks = " R: retained. Q: QoS. A click selects, another one opens or closes.";
    lines.push(Line::styled(marks, theme.faint()));
    frame.render_widget(Paragraph::new(lines), area);
}

fn events(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let [width, time_width] = [76_u16, 14_u16].map(usize::from);
    let room = width.min(frame.area().width.into()).saturating_sub(time_width + 2).max(1);
    let mut lines = Vec::new();
    for (at_ms, text) in &model.events {
        let mut head = clock(*at_ms, &model.time_zone);
        for part in wrapped(&clean(text), room) {
            let time = Span::styled(format!("{head:time_width$}"), theme.faint());
            lines.push(Line::from_iter([time, Span::raw(part)]));
            head.clear();
        }
    }
    let height = (lines.len() as u16 + 2).max(5);
    let area = window(frame, [width as u16, height], "Connection", "any key closes", theme);
    let skipped = lines.len().saturating_sub(area.height.into());
    frame.render_widget(Paragraph::new(lines.split_off(skipped)), area);
}

fn publish(frame: &mut Frame<'_>, form: &PublishForm, theme: Theme) {
    let keys = "Enter publishes, Tab moves, Esc closes";
    let area = window(frame, [72, 8], "Publish", keys, theme);
    let row = |index: u16| Rect { y: area.y + index, height: 1, ..area }.intersection(area);
    for (index, name) in ["  Topic ", "Payload "].into_iter().enumerate() {
        let is_here = form.field == index;
        let head = Line::styled(name, if is_here { theme.key() } else { theme.faint() });
        input(frame, row(index as u16), head, &form.texts[index], Line::default(), is_here);
    }
    let choice = |field: usize, text: String| {
        let style = if form.field == field { theme.selected(true) } else { theme.value() };
        Span::styled(text, style)
    };
    let head = |field: usize, text: &'static str| {
        Span::styled(text, if form.field == field { theme.key() } else { theme.faint() })
    };
    let retain = if form.retain { " yes " } else { " no " };
    let line = Line::from(vec![
        head(2, "    QoS "),
        choice(2, format!(" {} ", form.qos as u8)),
        head(3, "   Retain "),
        choice(3, retain.into()),
        Span::styled("   space changes", theme.faint()),
    ]);
    frame.render_widget(Paragraph::new(line), row(3));
    if let Some(notice) = &form.notice {
        let notice = Line::styled(format!(" {}", clean(notice)), theme.warning());
        frame.render_widget(Paragraph::new(notice), row(5));
    }
}

fn subscriptions(frame: &mut Frame<'_>, form: &SubscriptionForm, model: &Model, theme: Theme) {
    let keys = "Enter adds, Tab QoS, Del removes, Esc closes";
    let height = (model.subscriptions.len() as u16 + 6).max(8);
    let area = window(frame, [64, height], "Subscriptions", keys, theme);
    let row = |index: u16| Rect { y: area.y + index, height: 1, ..area }.intersection(area);
    let head = Line::styled("Add ", theme.key());
    let tail = Line::styled(format!(" QoS {} ", form.qos), theme.figure());
    input(frame, row(0), head, &form.filter, tail, true);
    if let Some(notice) = &form.notice {
        let notice = Line::styled(format!("    {}", clean(notice)), theme.warning());
        frame.render_widget(Paragraph::new(notice), row(1));
    }
    let room = usize::from(area.height.saturating_sub(2)).max(1);
    let selected = form.selected.min(model.subscriptions.len().saturating_sub(1));
    let skipped = (selected + 1).saturating_sub(room);
    let shown = model.subscriptions.iter().enumerate().skip(skipped).take(room);
    for (y, (index, known)) in (2..).zip(shown) {
        let answer = match &known.answer {
            None => Span::styled("asked for", theme.warning()),
            Some(Ok(qos)) => Span::styled(format!("QoS {}", *qos as u8), theme.good()),
            Some(Err(why)) => Span::styled(clean(why), theme.bad()),
        };
        let line = Line::from(vec![Span::raw(format!(" {}  ", clean(&known.filter))), answer]);
        let mut line = Paragraph::new(line);
        if index == selected {
            line = line.style(theme.selected(form.filter.value().is_empty()));
        }
        frame.render_widget(line, row(y));
    }
}

fn remove(frame: &mut Frame<'_>, topics: &[String], theme: Theme) {
    let shown = topics.len().min(8);
    let height = shown as u16 + 6;
    let keys = "y removes, any other key closes";
    let area = window(frame, [64, height], "Remove retained", keys, theme);
    let text = counted(topics.len() as u64, "retained message");
    let question = format!("Have the broker forget {text}?");
    let mut lines = vec![Line::styled(question, theme.warning()), Line::default()];
    lines.extend(topics.iter().take(shown).map(|topic| Line::from(format!("  {}", clean(topic)))));
    if topics.len() > shown {
        lines.push(Line::styled(format!("  and {} more", topics.len() - shown), theme.faint()));
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

/// A line to type in between two texts; `has_cursor`: keys go there.
pub fn input(
    frame: &mut Frame<'_>,
    area: Rect,
    head: Line<'_>,
    input: &Input,
    tail: Line<'_>,
    has_cursor: bool,
) {
    if area.is_empty() {
        return;
    }
    let columns = |line: &Line<'_>| Constraint::Length(line.width() as u16);
    let [left, middle, right] =
        Layout::horizontal([columns(&head), Constraint::Min(1), columns(&tail)]).areas(area);
    frame.render_widget(head, left);
    frame.render_widget(tail, right);
    // Before the cursor and behind it, so that what is made visible does not shift it.
    let cursor = input.value().char_indices().nth(input.cursor()).map(|(at, _)| at);
    let (before, after) = input.value().split_at(cursor.unwrap_or(input.value().len()));
    let (before, after) = (one_line(before), one_line(after));
    let column = Span::raw(before.as_str()).width();
    let scroll = (column + 1).saturating_sub(middle.width.into());
    let text = Line::from(vec![Span::raw(before), Span::raw(after)]);
    frame.render_widget(Paragraph::new(text).scroll((0, scroll as u16)), middle);
    if has_cursor && !middle.is_empty() {
        let x = middle.x + ((column - scroll) as u16).min(middle.width - 1);
        frame.set_cursor_position(Position::new(x, middle.y));
    }
}

fn one_line(text: &str) -> String {
    clean(&text.replace('\n', "↵"))
}
