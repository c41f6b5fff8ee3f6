//! What stands in front of the tree and takes the keys: lines to type in, questions, lists.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use tui_input::backend::crossterm::EventHandler;
use tui_input::{Input, InputRequest};
use whimbrel_codec::QoS;

use super::model::Action;
use super::topics::{NodeId, Topics};
use crate::topic;

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Checked to be a topic name.
    pub topic: String,
    /// As typed.
    pub payload: String,
    /// Of the publish.
    pub qos: QoS,
    /// Whether the broker is to keep it.
    pub retain: bool,
}

/// What is in front.
#[derive(Clone, Debug)]
pub enum Dialog {
    /// The keys.
    Help,
    /// What happened to the connection.
    Events,
    /// The line of the search.
    Search(Input),
    /// A message to be published.
    Publish(PublishForm),
    /// The filters subscribed to.
    Subscriptions(SubscriptionForm),
    /// Whether to remove the retained messages of these topics.
    Remove(Vec<String>),
}

/// How a key changed a dialog.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays.
    Stay,
    /// It goes.
    Close,
    /// It stays, and something is to be done.
    Act(Action),
    /// It goes, and something is to be done.
    CloseAndAct(Action),
}

/// Fields of a message, one of which has the cursor.
#[derive(Clone, Debug)]
pub struct PublishForm {
    /// Topic and payload.
    pub texts: [Input; 2],
    /// 0, 1 or 2.
    pub qos: QoS,
    /// Whether the broker is to keep it.
    pub retain: bool,
    /// Topic, payload, QoS, retain.
    pub field: usize,
    /// What is wrong with the fields, or what to know about them.
    pub notice: Option<String>,
}

/// Filters, and a line for another one.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionForm {
    /// Another filter.
    pub filter: Input,
    /// Its QoS.
    pub qos: u8,
    /// The one that Delete is about.
    pub selected: usize,
    /// What is wrong with the filter.
    pub notice: Option<String>,
}

/// Fields of [`PublishForm`].
const FIELDS: usize = 4;

impl PublishForm {
    /// Filled in with the last message of a topic.
    pub fn of(topics: &Topics, id: NodeId) -> PublishForm {
        let topic = topics.topic(id);
        let last = topics.node(id).last();
        let text = last.filter(|value| value.is_whole()).map(|value| &*value.payload);
        let text = text.map_or(Some(""), |payload| std::str::from_utf8(payload).ok());
        let is_text = text.is_some() && last.is_none_or(|value| value.is_whole());
        PublishForm {
            field: usize::from(!topic.is_empty()),
            texts: [topic.into(), text.unwrap_or_default().into()],
            qos: last.map_or(QoS::AtMostOnce, |value| value.qos),
            retain: topics.node(id).is_retained,
            notice: (!is_text).then(|| "the last payload is no text, or too long".into()),
        }
    }

    fn handle_key(&mut self, key: KeyEvent) -> Step {
        let is_text = self.field < self.texts.len();
        match key.code {
            KeyCode::Esc => return Step::Close,
            KeyCode::Enter => return self.submit(),
            KeyCode::Tab | KeyCode::Down => self.field = (self.field + 1) % FIELDS,
            KeyCode::BackTab | KeyCode::Up => self.field = (self.field + FIELDS - 1) % FIELDS,
            _ if is_text => {
                self.texts[self.field].handle_event(&Event::Key(key));
                self.notice = None;
            }
            KeyCode::Char(digit @ '0'..='2') if self.field == 2 => {
                self.qos = QoS::from_u8(digit as u8 - b'0').unwrap_or(self.qos);
            }
            KeyCode::Char(' ') | KeyCode::Right if self.field == 2 => self.turn_qos(1),
            KeyCode::Left if self.field == 2 => self.turn_qos(2),
            KeyCode::Char(' ') | KeyCode::Left | KeyCode::Right => self.retain = !self.retain,
            _ => {}
        }
        Step::Stay
    }

    fn turn_qos(&mut self, by: u8) {
        self.qos = QoS::from_u8((self.qos as u8 + by) % 3).unwrap_or(self.qos);
    }

    fn submit(&mut self) -> Step {
        let [topic, payload] = self.texts.each_ref().map(|input| input.value().to_string());
        if !topic::is_name(&topic) {
            self.notice = Some("a topic must not be empty or contain + or #".into());
            self.field = 0;
            return Step::Stay;
        }
        let draft = Draft { topic, payload, qos: self.qos, retain: self.retain };
        Step::CloseAndAct(Action::Publish(draft))
    }
}

impl SubscriptionForm {
    fn handle_key(&mut self, key: KeyEvent, filters: &[&str]) -> Step {
        let last = filters.len().saturating_sub(1);
        match key.code {
            KeyCode::Esc => return Step::Close,
            KeyCode::Up => self.selected = self.selected.min(last).saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            KeyCode::Tab | KeyCode::BackTab => self.qos = (self.qos + 1) % 3,
            KeyCode::Enter if self.filter.value().is_empty() => return Step::Close,
            KeyCode::Enter => return self.submit(filters),
            KeyCode::Delete if self.filter.value().is_empty() => {
                if let Some(filter) = filters.get(self.selected.min(last)) {
                    self.selected = self.selected.min(last.saturating_sub(1));
                    return Step::Act(Action::Unsubscribe((*filter).into()));
                }
            }
            _ => {
                self.filter.handle_event(&Event::Key(key));
                self.notice = None;
            }
        }
        Step::Stay
    }

    fn submit(&mut self, filters: &[&str]) -> Step {
        let filter = self.filter.value().to_string();
        let wrong = if !topic::is_filter(&filter) {
            Some("no topic filter: + must be a whole level, # the last one")
        } else if filters.contains(&filter.as_str()) {
            Some("it is subscribed to already")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.notice = Some(wrong.into());
            return Step::Stay;
        }
        self.filter.reset();
        let qos = QoS::from_u8(self.qos).unwrap_or(QoS::AtMostOnce);
        Step::Act(Action::Subscribe { filter, qos })
    }
}

impl Dialog {
    /// What a key does; `filters` are those subscribed to.
    pub fn handle_key(&mut self, key: KeyEvent, filters: &[&str]) -> Step {
        match self {
            Dialog::Help | Dialog::Events => match key.code {
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char(_) | KeyCode::F(_) => Step::Close,
                _ => Step::Stay,
            },
            Dialog::Search(input) => match key.code {
                KeyCode::Enter => Step::Close,
                KeyCode::Esc => {
                    input.reset();
                    Step::Close
                }
                _ => {
                    input.handle_event(&Event::Key(key));
                    Step::Stay
                }
            },
            Dialog::Publish(form) => form.handle_key(key),
            Dialog::Subscriptions(form) => form.handle_key(key, filters),
            Dialog::Remove(topics) => match key.code {
                KeyCode::Char('y' | 'Y')
                    if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() =>
                {
                    Step::CloseAndAct(Action::Remove(std::mem::take(topics)))
                }
                _ => Step::Close,
            },
        }
    }

    /// Text from the clipboard, for the line that has the cursor.
    pub fn handle_paste(&mut self, text: &str) {
        let input = match self {
            Dialog::Search(input) => input,
            Dialog::Publish(form) => match form.texts.get_mut(form.field) {
                Some(input) => input,
                None => return,
            },
            Dialog::Subscriptions(form) => &mut form.filter,
            Dialog::Help | Dialog::Events | Dialog::Remove(_) => return,
        };
        for c in text.chars().filter(|c| *c != '\r') {
            input.handle(InputRequest::InsertChar(c));
        }
    }
}
