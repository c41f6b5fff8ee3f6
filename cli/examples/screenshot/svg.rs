//! The screen of a terminal as SVG. Frames and bars are drawn as shapes, so that they join in any
//! font.

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// Size of a cell, and of the letters in it, in pixels.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 17.0;
const FONT: f32 = 14.0;
/// Space around the screen, and the bar above it.
const MARGIN: f32 = 12.0;
const BAR: f32 = 30.0;

const BACKGROUND: &str = "#1a1d26";
const TEXT: &str = "#c9d1d9";
/// The sixteen colours of the terminal.
const COLOURS: [&str; 16] = [
    "#20242f", "#ff7b72", "#7ee787", "#f2cc60", "#79b8ff", "#d2a8ff", "#56d4dd", "#c9d1d9",
    "#6b7587", "#ffa198", "#a5f3b0", "#ffdf7a", "#a5d2ff", "#e2c5ff", "#8be9f0", "#ffffff",
];

/// A whole picture, with this in the bar above.
pub fn draw(screen: &Screen, title: &str) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let width = f32::from(columns) * WIDTH + 2.0 * MARGIN;
    let height = f32::from(rows) * HEIGHT + MARGIN + BAR + MARGIN / 2.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-size=\"{FONT}\" font-family=\"\
         'DejaVu Sans Mono',Menlo,Consolas,monospace\">\n\
         <title>{title}</title>\n\
         <rect width=\"{width:.1}\" height=\"{height:.1}\" rx=\"9\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (index, colour) in ["#ff5f57", "#febc2e", "#28c840"].iter().enumerate() {
        let x = 18.0 + 18.0 * index as f32;
        let _ = writeln!(out, "<circle cx=\"{x}\" cy=\"15\" r=\"5.5\" fill=\"{colour}\"/>");
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"20\" text-anchor=\"middle\" fill=\"{}\">{}</text>",
        width / 2.0,
        COLOURS[8],
        escaped(title)
    );
    for row in 0..rows {
        draw_row(screen, row, columns, &mut out);
    }
    out + "</svg>\n"
}

/// Text of one style that is drawn at once.
#[derive(Default)]
struct Run {
    start: u16,
    columns: u16,
    text: String,
    fill: String,
    is_bold: bool,
}

fn draw_row(screen: &Screen, row: u16, columns: u16, out: &mut String) {
    let mut run = Run::default();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column) else { continue };
        let (x, y) = (MARGIN + f32::from(column) * WIDTH, BAR + f32::from(row) * HEIGHT);
        let (foreground, background) = colours(cell);
        if let Some(colour) = background {
            rect(out, [x, y, WIDTH + 0.3, HEIGHT + 0.3], &colour);
        }
        let text = cell.contents();
        if cell.is_wide_continuation() {
            run.columns += 1;
        } else if text.trim().is_empty() || shape(text, x, y, &foreground, out) {
            end_run(&mut run, row, out);
        } else {
            if run.fill != foreground || run.is_bold != cell.bold() {
                end_run(&mut run, row, out);
            }
            if run.columns == 0 {
                run = Run { start: column, is_bold: cell.bold(), fill: foreground, ..run };
            }
            run.text.push_str(text);
            run.columns += 1;
        }
    }
    end_run(&mut run, row, out);
}

fn end_run(run: &mut Run, row: u16, out: &mut String) {
    let Run { start, columns, text, fill, is_bold } = std::mem::take(run);
    if columns == 0 {
        return;
    }
    let x = MARGIN + f32::from(start) * WIDTH;
    let y = BAR + f32::from(row) * HEIGHT + HEIGHT * 0.77;
    let length = f32::from(columns) * WIDTH;
    let weight = if is_bold { " font-weight=\"bold\"" } else { "" };
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\" fill=\"{fill}\"{weight}>{}</text>",
        escaped(&text)
    );
}

/// Draws a character that is to touch its neighbours; false if it is another one.
fn shape(text: &str, x: f32, y: f32, colour: &str, out: &mut String) -> bool {
    let (right, bottom) = (x + WIDTH, y + HEIGHT);
    let (middle, centre) = (x + WIDTH / 2.0, y + HEIGHT / 2.0);
    let r = WIDTH / 2.0;
    let path = match text {
        "─" => format!("M{x:.1} {centre:.1}H{right:.1}"),
        "│" | "┃" => format!("M{middle:.1} {y:.1}V{bottom:.1}"),
        "╭" => format!("M{middle:.1} {bottom:.1}V{:.1}q0 -{r} {r} -{r}", centre + r),
        "╮" => format!("M{middle:.1} {bottom:.1}V{:.1}q0 -{r} -{r} -{r}", centre + r),
        "╰" => format!("M{middle:.1} {y:.1}V{:.1}q0 {r} {r} {r}", centre - r),
        "╯" => format!("M{middle:.1} {y:.1}V{:.1}q0 {r} -{r} {r}", centre - r),
        _ => {
            let eighths = match "▁▂▃▄▅▆▇█".chars().position(|bar| text == bar.to_string())
            {
                Some(index) => index as f32 + 1.0,
                None => return false,
            };
            let height = HEIGHT * eighths / 8.0;
            // A hair's breadth more, so that no gap is seen between cells.
            rect(out, [x, bottom - height, WIDTH + 0.3, height + 0.3], colour);
            return true;
        }
    };
    let width = if text == "┃" { 3.0 } else { 1.2 };
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
    true
}

fn rect(out: &mut String, [x, y, width, height]: [f32; 4], colour: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"{colour}\"/>"
    );
}

/// Of the letters, and of what is behind them unless it is the terminal's own.
fn colours(cell: &Cell) -> (String, Option<String>) {
    let foreground = colour(cell.fgcolor(), TEXT);
    let background = colour(cell.bgcolor(), BACKGROUND);
    match cell.inverse() {
        true => (background, Some(foreground)),
        false => {
            let is_own = cell.bgcolor() == Color::Default;
            (foreground, (!is_own).then_some(background))
        }
    }
}

fn colour(colour: Color, own: &str) -> String {
    match colour {
        Color::Default => own.into(),
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        Color::Idx(index @ 0..16) => COLOURS[usize::from(index)].into(),
        // A cube of 6 by 6 by 6, then greys, as all terminals have them.
        Color::Idx(index @ 16..232) => {
            let level = |step: u8| if step == 0 { 0 } else { 55 + step * 40 };
            let cube = index - 16;
            let [r, g, b] = [cube / 36, cube / 6 % 6, cube % 6].map(level);
            format!("#{r:02x}{g:02x}{b:02x}")
        }
        Color::Idx(index) => {
            let grey = 8 + (index - 232) * 10;
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
