//! What the shell knows and shows, without a terminal and without a connection: messages, keys and
//! the time go in, actions come out.

use std::collections::VecDeque;

use jiff::tz::TimeZone;
use ratatui::layout::Rect;
use whimbrel_codec::{Publish, QoS};

use super::dialog::{Dialog, Draft};
use super::layout::{inside, panes};
use super::payload;
use super::rows::{Row, Wanted, rows};
use super::topics::{Limits, NodeId, ROOT, Topics};
use super::value::Value;
use crate::view::View;

/// What happened to the connection, at most.
const EVENTS_MAX: usize = 100;
/// How long the footer tells of something.
const NOTICE_MS: u64 = 5000;

/// What the model wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Disconnect and end.
    Quit,
    /// Publish a message.
    Publish(Draft),
    /// Publish an empty retained message to each of these topics.
    Remove(Vec<String>),
    /// Subscribe to one more filter.
    Subscribe {
        /// Checked to be a filter.
        filter: String,
        /// At most.
        qos: QoS,
    },
    /// Unsubscribe from a filter.
    Unsubscribe(String),
}

/// The pane that keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The tree.
    Topics,
    /// What is known of the selected topic.
    Details,
}

/// How things stand with the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// CONNACK has not come.
    Connecting,
    /// All is well.
    Connected,
    /// Lost, or refused.
    Waiting {
        /// When it is tried again, in milliseconds since 1970.
        until_ms: u64,
        /// What went wrong.
        why: String,
    },
    /// It will not come back.
    Closed {
        /// What went wrong.
        why: String,
    },
}

/// A filter, and what the broker said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// As given.
    pub filter: String,
    /// As asked for.
    pub qos: QoS,
    /// None while SUBACK has not come; why not, if it was refused.
    pub answer: Option<Result<QoS, String>>,
}

/// A line of the footer.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What happened.
    pub text: String,
    /// Whether it should not have.
    pub is_error: bool,
    until_ms: u64,
}

/// Everything that can be seen.
pub struct Model {
    /// Whom it is about, as `mqtt://localhost:1883`.
    pub broker: String,
    /// Of the clock on the screen.
    pub time_zone: TimeZone,
    /// Whether colours may be used.
    pub colour: bool,
    /// All topics, and their messages.
    pub topics: Topics,
    /// The shown part of the tree. See [`Model::refresh`].
    pub rows: Vec<Row>,
    /// One of the rows, if there is any.
    pub selected: NodeId,
    /// The first row on the screen.
    pub offset: usize,
    /// What the rows are chosen by.
    pub wanted: Wanted,
    /// Where keys go.
    pub focus: Focus,
    /// Whether the pane with the focus has all of the screen.
    pub zoom: bool,
    /// How payloads are shown.
    pub view: View,
    /// Lines of the payload above the first one shown.
    pub scroll: usize,
    /// What is in front of the tree.
    pub dialog: Option<Dialog>,
    /// Messages that came and were not taken in since the user stopped the view.
    pub paused: Option<u64>,
    /// How things stand.
    pub connection: Connection,
    /// What happened to it, and when.
    pub events: VecDeque<(u64, String)>,
    /// In the order of subscribing.
    pub subscriptions: Vec<Subscribed>,
    /// In milliseconds since 1970.
    pub now_ms: u64,
    /// The size of the screen.
    pub screen: Rect,
    notice: Option<Notice>,
    changed: bool,
    /// What the rows were made from.
    rows_of: Option<(u64, Wanted)>,
}

impl Model {
    /// Nothing seen yet.
    pub fn new(broker: String, limits: Limits, now_ms: u64) -> Model {
        Model {
            broker,
            time_zone: TimeZone::UTC,
            colour: true,
            topics: Topics::new(limits),
            rows: Vec::new(),
            selected: ROOT,
            offset: 0,
            wanted: Wanted::default(),
            focus: Focus::Topics,
            zoom: false,
            view: View::Auto,
            scroll: 0,
            dialog: None,
            paused: None,
            connection: Connection::Connecting,
            events: VecDeque::new(),
            subscriptions: Vec::new(),
            now_ms,
            screen: Rect::new(0, 0, 80, 24),
            notice: None,
            changed: true,
            rows_of: None,
        }
    }

    /// A message of a subscription.
    pub fn handle_message(&mut self, message: &Publish<'_>) {
        match &mut self.paused {
            Some(missed) => *missed += 1,
            None => self.topics.handle_message(self.now_ms, message),
        }
        self.changed = true;
    }

    /// The time, in milliseconds since 1970. Ages and rates are shown anew each second.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.changed |= now_ms / 1000 != self.now_ms / 1000;
        self.now_ms = now_ms;
        if self.notice.as_ref().is_some_and(|notice| notice.until_ms <= now_ms) {
            self.notice = None;
            self.changed = true;
        }
    }

    /// The size of the screen.
    pub fn handle_resize(&mut self, width: u16, height: u16) {
        self.screen = Rect::new(0, 0, width, height);
        self.changed = true;
    }

    /// News of the connection.
    pub fn handle_connection(&mut self, connection: Connection) {
        let text = match &connection {
            Connection::Connecting => format!("connecting to {}", self.broker),
            Connection::Connected => format!("connected to {}", self.broker),
            Connection::Waiting { until_ms, why } => {
                let left_ms = until_ms.saturating_sub(self.now_ms);
                format!("{why}; next try in {}.{} s", left_ms / 1000, left_ms % 1000 / 100)
            }
            Connection::Closed { why } => why.clone(),
        };
        self.connection = connection;
        self.push_event(text);
    }

    /// A line for the list of events.
    pub fn push_event(&mut self, text: String) {
        self.events.push_back((self.now_ms, text));
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        self.changed = true;
    }

    /// A filter is being subscribed to.
    pub fn handle_subscribing(&mut self, filter: &str, qos: QoS) {
        self.subscriptions.retain(|known| known.filter != filter);
        self.subscriptions.push(Subscribed { filter: filter.into(), qos, answer: None });
        self.changed = true;
    }

    /// What SUBACK said.
    pub fn handle_suback(&mut self, filter: &str, answer: Result<QoS, String>) {
        if let Err(why) = &answer {
            self.complain(format!("not subscribed to {filter}: {why}"));
        }
        let known = self.subscriptions.iter_mut().find(|known| known.filter == filter);
        if let Some(subscribed) = known {
            subscribed.answer = Some(answer);
        }
        self.changed = true;
    }

    /// A filter is no longer subscribed to.
    pub fn handle_unsubscribed(&mut self, filter: &str) {
        self.subscriptions.retain(|known| known.filter != filter);
        self.tell(format!("unsubscribed from {filter}"));
    }

    /// The broker has removed the retained message of a topic.
    pub fn handle_removed(&mut self, topic: &str) {
        if let Some(id) = self.topics.find(topic) {
            self.changed |= self.topics.set_retained(id, false);
        }
    }

    /// Something for the footer.
    pub fn tell(&mut self, text: String) {
        self.notice = Some(Notice { text, is_error: false, until_ms: self.now_ms + NOTICE_MS });
        self.changed = true;
    }

    /// Something for the footer, and for the list of events, that went wrong.
    pub fn complain(&mut self, text: String) {
        self.push_event(text.clone());
        self.notice = Some(Notice { text, is_error: true, until_ms: self.now_ms + 2 * NOTICE_MS });
    }

    /// For the footer.
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// Whether there is something to draw.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Something is to be drawn anew.
    pub fn set_changed(&mut self) {
        self.changed = true;
    }

    /// Whether to draw, once.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Brings rows, selection and offset up to date; to be called before drawing and before keys.
    pub fn refresh(&mut self) {
        let now = (self.topics.version(), self.wanted.clone());
        if self.rows_of.as_ref() != Some(&now) {
            self.rows = rows(&self.topics, &self.wanted);
            self.rows_of = Some(now);
        }
        let index = self.selected_row().unwrap_or_else(|| self.nearest_row());
        self.select_row(index);
    }

    /// Where the selected place stands among the rows.
    pub fn selected_row(&self) -> Option<usize> {
        self.rows.iter().position(|row| row.id == self.selected)
    }

    /// The row of the closest place above the selected one.
    fn nearest_row(&self) -> usize {
        let mut id = self.selected;
        while id != ROOT {
            id = self.topics.node(id).parent;
            if let Some(index) = self.rows.iter().position(|row| row.id == id) {
                return index;
            }
        }
        0
    }

    /// Selects a row, or the last one, and brings it onto the screen.
    pub fn select_row(&mut self, index: usize) {
        let index = index.min(self.rows.len().saturating_sub(1));
        let id = self.rows.get(index).map_or(ROOT, |row| row.id);
        if id != self.selected {
            self.selected = id;
            self.scroll = 0;
            self.changed = true;
        }
        let height = self.page();
        let last = self.rows.len().saturating_sub(height);
        self.offset = self.offset.min(last).clamp((index + 1).saturating_sub(height), index);
    }

    /// Rows of the tree that the screen has room for, at least one.
    pub fn page(&self) -> usize {
        let pane = panes(self.screen, self.focus, self.zoom).topics;
        usize::from(inside(pane).height).max(1)
    }

    /// The payload of the selected topic, in lines that fit into the pane.
    pub fn payload_lines(&self) -> Vec<String> {
        let pane = inside(panes(self.screen, self.focus, self.zoom).details);
        let last = self.topics.node(self.selected).last();
        let lines = |last: &Value| payload::lines(self.view, &last.payload, pane.width.into());
        last.map(lines).unwrap_or_default()
    }

    /// The last line of a payload stays in sight.
    pub fn clamp_scroll(&mut self) {
        self.scroll = self.scroll.min(self.payload_lines().len().saturating_sub(1));
    }

    /// The filters subscribed to.
    pub fn filters(&self) -> Vec<&str> {
        self.subscriptions.iter().map(|known| known.filter.as_str()).collect()
    }
}
