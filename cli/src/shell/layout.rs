//! Where things stand on a screen of any size.

use ratatui::layout::{Margin, Rect};

use super::model::Focus;

/// From so many columns on, the panes stand side by side.
const WIDE: u16 = 64;
/// Below so many rows there is room for one pane alone.
const FLAT: u16 = 12;

/// The parts of the screen; an area is empty if there is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panes {
    /// Connection and totals: one row.
    pub header: Rect,
    /// The tree, with its frame.
    pub topics: Rect,
    /// The selected topic, with its frame.
    pub details: Rect,
    /// Keys, or what has just happened: one row.
    pub footer: Rect,
}

/// Divides the screen; `zoom`: one pane has all of it.
pub fn panes(screen: Rect, focus: Focus, zoom: bool) -> Panes {
    let row = |y: u16| Rect { y, height: 1, ..screen }.intersection(screen);
    let footer = row(screen.bottom().saturating_sub(1));
    let header = if screen.height < 3 { Rect::ZERO } else { row(screen.y) };
    let height = screen.height.saturating_sub(header.height + footer.height);
    let body = Rect { y: screen.y + header.height, height, ..screen };
    let (topics, details) = if zoom || (body.width < WIDE && body.height < FLAT) {
        match focus {
            Focus::Topics => (body, Rect::ZERO),
            Focus::Details => (Rect::ZERO, body),
        }
    } else if body.width >= WIDE {
        let width = (u32::from(body.width) * 54 / 100) as u16;
        let left = Rect { width, ..body };
        (left, Rect { x: body.x + width, width: body.width - width, ..body })
    } else {
        let height = body.height / 2;
        let top = Rect { height, ..body };
        (top, Rect { y: body.y + height, height: body.height - height, ..body })
    };
    Panes { header, topics, details, footer }
}

/// What is left inside a frame.
pub fn inside(pane: Rect) -> Rect {
    pane.inner(Margin { horizontal: 1, vertical: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_is_divided_without_a_rest() {
        for (width, height, zoom) in
            (0..140).flat_map(|w| (0..50).flat_map(move |h| [(w, h, false), (w, h, true)]))
        {
            for focus in [Focus::Topics, Focus::Details] {
                let screen = Rect::new(0, 0, width, height);
                let all = panes(screen, focus, zoom);
                let parts = [all.header, all.topics, all.details, all.footer];
                let sum: u32 = parts.iter().map(|part| part.area()).sum();
                assert_eq!(sum, screen.area(), "{screen:?} {all:?}");
                let inside = parts.iter().all(|p| p.is_empty() || screen.union(*p) == screen);
                assert!(inside, "{screen:?} {all:?}");
            }
        }
    }
}
