//! Colours: the terminal's own sixteen, so that they go with any background; or none.

use ratatui::style::{Color, Modifier, Style};

/// Styles by what they say.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// Without colours only bold, dim and reversed are left.
    pub fn new(colour: bool) -> Theme {
        Theme { colour }
    }

    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// The name of the program, and other things to be seen first.
    pub fn strong(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// What one need not read.
    pub fn faint(self) -> Style {
        if self.colour {
            self.fg(Color::DarkGray)
        } else {
            Style::new().add_modifier(Modifier::DIM)
        }
    }

    /// A level with levels below.
    pub fn branch(self) -> Style {
        self.fg(Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// A payload.
    pub fn value(self) -> Style {
        self.fg(Color::Green)
    }

    /// A payload that has just come.
    pub fn fresh(self) -> Style {
        self.fg(Color::LightGreen).add_modifier(Modifier::BOLD)
    }

    /// How many.
    pub fn figure(self) -> Style {
        self.fg(Color::Cyan)
    }

    /// Retained.
    pub fn retained(self) -> Style {
        self.fg(Color::Yellow)
    }

    /// All is well.
    pub fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// Something waits.
    pub fn warning(self) -> Style {
        self.fg(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Something went wrong.
    pub fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A key to press.
    pub fn key(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// The frame of a pane; `is_focus`: keys go there.
    pub fn frame(self, is_focus: bool) -> Style {
        if is_focus { self.fg(Color::Cyan) } else { self.faint() }
    }

    /// The selected line.
    pub fn selected(self, is_focus: bool) -> Style {
        match (self.colour, is_focus) {
            (true, true) => Style::new().bg(Color::Indexed(24)).fg(Color::White),
            (true, false) => Style::new().bg(Color::Indexed(238)),
            (false, true) => Style::new().add_modifier(Modifier::REVERSED),
            (false, false) => Style::new().add_modifier(Modifier::UNDERLINED),
        }
    }
}
