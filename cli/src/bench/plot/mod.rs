//! `--plot`: a picture of one or several reports, as SVG or PNG by the name of its file.
//!
//! The picture is drawn once, for either: [`panel`] says what is to be seen, [`figure`] where.

mod figure;
mod panel;

use std::path::Path;

use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::drawing::IntoDrawingArea;
use plotters::style::{FontStyle, register_font};

use self::figure::Figure;
use super::report::Report;
use crate::failure::Failure;

/// Runs in one picture, at most: more cannot be told apart.
pub const RUNS_MAX: usize = 8;

/// Pixels of a PNG for one of an SVG, in each direction.
const PNG_SCALE: u32 = 2;
/// Pixels drawn for one of the PNG, in each direction; their mean is what it shows.
const SMOOTHING: u32 = 2;

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Svg,
    Png,
}

impl Format {
    /// By the end of a file's name.
    pub fn of(path: &Path) -> Result<Format, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Format::Svg),
            Some("png") => Ok(Format::Png),
            _ => {
                let place = path.display();
                Err(Failure::usage(format!("--plot {place}: the name must end in .svg or .png")))
            }
        }
    }
}

/// Draws the reports, and writes the file.
pub fn write(path: &Path, reports: &[&Report]) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(1, format!("cannot write {}: {what}", path.display()));
    let format = Format::of(path)?;
    let bytes = draw(format, reports).map_err(failed)?;
    std::fs::write(path, bytes).map_err(|error| failed(error.to_string()))
}

/// The bytes of the file.
fn draw(format: Format, reports: &[&Report]) -> Result<Vec<u8>, String> {
    for (style, font) in [
        (FontStyle::Normal, &include_bytes!("../fonts/Roboto-Regular.ttf")[..]),
        (FontStyle::Bold, include_bytes!("../fonts/Roboto-Medium.ttf")),
    ] {
        register_font(figure::FONT, style, font).map_err(|_| "the font is damaged".to_string())?;
    }
    match format {
        Format::Svg => svg(reports),
        Format::Png => png(reports),
    }
}

fn svg(reports: &[&Report]) -> Result<Vec<u8>, String> {
    let figure = Figure::new(reports, 1);
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, figure.size()).into_drawing_area();
    figure.draw(&area).map_err(|error| error.to_string())?;
    drop(area);
    Ok(text.into_bytes())
}

fn png(reports: &[&Report]) -> Result<Vec<u8>, String> {
    let figure = Figure::new(reports, PNG_SCALE * SMOOTHING);
    let (width, height) = figure.size();
    let mut pixels = vec![255; width as usize * height as usize * 3];
    let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    figure.draw(&area).map_err(|error| error.to_string())?;
    drop(area);
    let pixels = smooth(&pixels, width as usize);
    encode(&pixels, width / SMOOTHING, height / SMOOTHING).map_err(|error| error.to_string())
}

/// The mean of each square of [`SMOOTHING`] by [`SMOOTHING`] pixels of RGB.
fn smooth(pixels: &[u8], width: usize) -> Vec<u8> {
    let side = SMOOTHING as usize;
    let rows: Vec<&[u8]> = pixels.chunks_exact(width * 3).collect();
    let mut out = Vec::with_capacity(pixels.len() / (side * side));
    for rows in rows.chunks_exact(side) {
        for left in (0..width).step_by(side) {
            for channel in 0..3 {
                let of = |row: &&[u8], x| row.get((left + x) * 3 + channel).copied();
                let values = rows.iter().flat_map(|row| (0..side).filter_map(move |x| of(row, x)));
                let sum: usize = values.map(usize::from).sum();
                out.push((sum / (side * side)) as u8);
            }
        }
    }
    out
}

fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
