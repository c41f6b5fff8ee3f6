//! What keys and the mouse do to the model.

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;

use super::dialog::{Dialog, PublishForm, Step, SubscriptionForm};
use super::layout::{inside, panes};
use super::model::{Action, Focus, Model};
use super::payload;
use super::topics::ROOT;

/// Rows that a turn of the wheel moves by.
const WHEEL: usize = 3;

/// The keys and what they are for, as the help shows them.
pub const HELP: &[(&str, &str)] = &[
    ("↑ ↓ PgUp PgDn Home End", "move; also k j g G"),
    ("→ ← Enter", "open and close; also l h"),
    ("e c", "open, close all below the selected topic"),
    ("E C", "open, close everything"),
    ("/", "search: text, or a topic filter as +/state"),
    ("Esc", "end the search"),
    ("r", "only topics with a retained message"),
    ("d Del", "remove retained messages here and below"),
    ("p", "publish, beginning with the last message"),
    ("s", "subscriptions: add and remove filters"),
    ("v V", "payload as text, JSON, hex, CBOR; backwards"),
    ("Tab", "to the other pane, as to scroll the payload"),
    ("z", "the pane alone on the screen"),
    ("space", "pause: messages that come are not shown"),
    ("x", "forget all topics and counts"),
    ("i", "what happened to the connection"),
    ("q Ctrl-C", "quit"),
];

impl Model {
    /// A key, the mouse, text from the clipboard, another size of the screen.
    pub fn handle_input(&mut self, event: &Event) -> Option<Action> {
        // A mouse that only moves shows nothing new.
        if matches!(event, Event::Mouse(mouse) if mouse.kind == MouseEventKind::Moved) {
            return None;
        }
        self.refresh();
        self.set_changed();
        let action = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.handle_key(*key),
            Event::Mouse(mouse) => {
                self.handle_mouse(*mouse);
                None
            }
            Event::Paste(text) => {
                if let Some(dialog) = &mut self.dialog {
                    dialog.handle_paste(text);
                    self.follow_search();
                }
                None
            }
            Event::Resize(width, height) => {
                self.handle_resize(*width, *height);
                None
            }
            _ => None,
        };
        self.refresh();
        action
    }

    fn handle_key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if self.dialog.is_some() {
            return self.handle_dialog_key(key);
        }
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('?') | KeyCode::F(1) => self.dialog = Some(Dialog::Help),
            KeyCode::Char('i') => self.dialog = Some(Dialog::Events),
            KeyCode::Char('/') => {
                let search = self.wanted.search.clone().into();
                self.dialog = Some(Dialog::Search(search));
            }
            KeyCode::Char('p') => {
                let form = PublishForm::of(&self.topics, self.selected);
                self.dialog = Some(Dialog::Publish(form));
            }
            KeyCode::Char('s') => {
                self.dialog = Some(Dialog::Subscriptions(SubscriptionForm::default()));
            }
            KeyCode::Char('d') | KeyCode::Delete => self.ask_to_remove(),
            KeyCode::Char('r') => self.wanted.retained_only = !self.wanted.retained_only,
            KeyCode::Char('v') => self.turn_view(false),
            KeyCode::Char('V') => self.turn_view(true),
            KeyCode::Char('z') => self.zoom = !self.zoom,
            KeyCode::Char(' ') => self.pause_or_go_on(),
            KeyCode::Char('x') => self.forget(),
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = match self.focus {
                    Focus::Topics => Focus::Details,
                    Focus::Details => Focus::Topics,
                };
            }
            KeyCode::Esc => self.wanted.search.clear(),
            code => match self.focus {
                Focus::Topics => self.handle_tree_key(code),
                Focus::Details => self.handle_details_key(code),
            },
        }
        None
    }

    fn handle_dialog_key(&mut self, key: KeyEvent) -> Option<Action> {
        let mut dialog = self.dialog.take()?;
        let step = dialog.handle_key(key, &self.filters());
        self.dialog = Some(dialog);
        self.follow_search();
        if matches!(step, Step::Close | Step::CloseAndAct(_)) {
            self.dialog = None;
        }
        match step {
            Step::Act(action) | Step::CloseAndAct(action) => Some(action),
            Step::Stay | Step::Close => None,
        }
    }

    /// What is typed is searched for at once.
    fn follow_search(&mut self) {
        if let Some(Dialog::Search(input)) = &self.dialog {
            self.wanted.search = input.value().into();
        }
    }

    fn handle_tree_key(&mut self, code: KeyCode) {
        let row = self.selected_row().unwrap_or_default();
        let page = self.page().saturating_sub(1).max(1);
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.select_row(row.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select_row(row + 1),
            KeyCode::PageUp => self.select_row(row.saturating_sub(page)),
            KeyCode::PageDown => self.select_row(row + page),
            KeyCode::Home | KeyCode::Char('g') => self.select_row(0),
            KeyCode::End | KeyCode::Char('G') => self.select_row(usize::MAX),
            KeyCode::Right | KeyCode::Char('l') => self.open_or_descend(row),
            KeyCode::Left | KeyCode::Char('h') => self.close_or_ascend(row),
            KeyCode::Enter => self.turn(row),
            KeyCode::Char('e') => self.topics.set_open_below(self.selected, true),
            KeyCode::Char('c') => self.topics.set_open_below(self.selected, false),
            KeyCode::Char('E') => self.topics.set_open_below(ROOT, true),
            KeyCode::Char('C') => self.topics.set_open_below(ROOT, false),
            _ => {}
        }
    }

    fn handle_details_key(&mut self, code: KeyCode) {
        let page = usize::from(self.screen.height / 2).max(1);
        self.scroll = match code {
            KeyCode::Up | KeyCode::Char('k') => self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll + 1,
            KeyCode::PageUp => self.scroll.saturating_sub(page),
            KeyCode::PageDown => self.scroll + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => self.scroll,
        };
        self.clamp_scroll();
    }

    /// Shows or hides what is below a row.
    fn turn(&mut self, row: usize) {
        if let Some(row) = self.rows.get(row) {
            self.topics.set_open(row.id, !row.is_open);
        }
    }

    fn open_or_descend(&mut self, index: usize) {
        match self.rows.get(index) {
            Some(row) if row.is_open => self.select_row(index + 1),
            Some(row) if !self.topics.node(row.id).children.is_empty() => self.turn(index),
            _ => {}
        }
    }

    fn close_or_ascend(&mut self, index: usize) {
        let Some(row) = self.rows.get(index).copied() else { return };
        if row.is_open && self.wanted.search.is_empty() {
            self.turn(index);
        } else if let Some(above) = self.rows[..index].iter().rposition(|r| r.depth < row.depth) {
            self.select_row(above);
        }
    }

    fn ask_to_remove(&mut self) {
        let topics = self.topics.retained_below(self.selected);
        if topics.is_empty() {
            self.tell("no retained message is known at or below this topic".into());
        } else {
            self.dialog = Some(Dialog::Remove(topics));
        }
    }

    fn pause_or_go_on(&mut self) {
        self.paused = match self.paused {
            Some(_) => None,
            None => Some(0),
        };
    }

    fn turn_view(&mut self, backwards: bool) {
        self.view = payload::turned(self.view, backwards);
        self.scroll = 0;
    }

    fn forget(&mut self) {
        self.topics.clear();
        (self.selected, self.offset, self.scroll) = (ROOT, 0, 0);
    }

    fn handle_mouse(&mut self, mouse: MouseEvent) {
        if self.dialog.is_some() {
            return;
        }
        let panes = panes(self.screen, self.focus, self.zoom);
        let at = Position::new(mouse.column, mouse.row);
        let row = self.selected_row().unwrap_or_default();
        let in_topics = panes.topics.contains(at);
        match mouse.kind {
            MouseEventKind::ScrollUp if in_topics => self.select_row(row.saturating_sub(WHEEL)),
            MouseEventKind::ScrollDown if in_topics => self.select_row(row + WHEEL),
            MouseEventKind::ScrollUp => self.scroll = self.scroll.saturating_sub(WHEEL),
            MouseEventKind::ScrollDown => {
                self.scroll += WHEEL;
                self.clamp_scroll();
            }
            MouseEventKind::Down(MouseButton::Left) if in_topics => {
                self.focus = Focus::Topics;
                let inside = inside(panes.topics);
                let index = self.offset + usize::from(at.y.saturating_sub(inside.y));
                if inside.contains(at) && index < self.rows.len() {
                    // A click on what is selected opens or closes it.
                    if index == row { self.turn(index) } else { self.select_row(index) }
                }
            }
            MouseEventKind::Down(MouseButton::Left) if panes.details.contains(at) => {
                self.focus = Focus::Details;
            }
            _ => {}
        }
    }
}
