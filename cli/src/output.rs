//! How the tools print what they receive: for eyes, for scripts, or in a format of the user's own.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::Args;
use jiff::{Timestamp, Zoned};
use whimbrel_codec::Publish;

use crate::failure::Failure;
use crate::format::Format;
use crate::lines::Object;
use crate::message_line;
use crate::view::{self, View};

const TIME: Style = Style::new().dimmed();
const TOPIC: Style = AnsiColor::Cyan.on_default();
const RETAINED: Style = AnsiColor::Yellow.on_default();

/// Flags of the output.
#[derive(Args, Debug)]
pub struct OutputArgs {
    /// Print the topic before the payload; in colour the time as well, and what was retained.
    #[arg(short, long, help_heading = "Output")]
    verbose: bool,
    /// Show payloads as raw bytes, as text that is safe for a terminal, as JSON in lines, as a hex
    /// dump, as CBOR in diagnostic notation, or as what fits; text on a terminal if not given,
    /// otherwise raw.
    #[arg(long, value_enum, value_name = "VIEW", help_heading = "Output")]
    view: Option<View>,
    /// Print each message as a line of JSON, for scripts.
    #[arg(long, conflicts_with_all = ["verbose", "view", "format", "pretty", "no_newline"])]
    #[arg(help_heading = "Output")]
    json: bool,
    /// Print in this format: %t topic, %p payload, %q QoS, %r retained, %l length, %m packet
    /// identifier, %x %X hexadecimal payload, %I %U time, %j %J JSON, %A %C %D %E %F %P %R %S
    /// properties, @X strftime, \n \t \e ... as in mosquitto_sub(1).
    #[arg(short = 'F', value_name = "FORMAT", allow_hyphen_values = true, help_heading = "Output")]
    format: Option<String>,
    /// Indent the JSON of %j and %J.
    #[arg(long, help_heading = "Output")]
    pretty: bool,
    /// Do not end each message with a newline.
    #[arg(short = 'N', help_heading = "Output")]
    no_newline: bool,
    /// When to print in colour; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = clap::ColorChoice::Auto)]
    #[arg(help_heading = "Output")]
    color: clap::ColorChoice,
}

impl OutputArgs {
    /// To stdout.
    pub fn printer(&self) -> Result<Printer, Failure> {
        let out = io::stdout().lock();
        let colour = match self.color {
            clap::ColorChoice::Always => true,
            clap::ColorChoice::Never => false,
            clap::ColorChoice::Auto => AutoStream::choice(&out) != ColorChoice::Never,
        };
        let layout = self.layout(colour, out.is_terminal())?;
        Ok(Printer { out: BufWriter::new(out), layout })
    }

    fn layout(&self, colour: bool, terminal: bool) -> Result<Layout, Failure> {
        if self.json {
            return Ok(Layout::Json);
        }
        if let Some(format) = &self.format {
            let end = if self.no_newline { "" } else { "\n" };
            let view = self.view.unwrap_or(View::Raw);
            return Format::parse(format, self.pretty, view)
                .map(|format| Layout::Format(format.with_end(end)))
                .map_err(|error| Failure::usage(format!("-F: {error}")));
        }
        Ok(Layout::Plain(Plain {
            verbose: self.verbose,
            colour,
            terminal,
            newline: !self.no_newline,
            view: self.view.unwrap_or(if terminal { View::Text } else { View::Raw }),
        }))
    }
}

/// Prints messages on stdout.
pub struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    layout: Layout,
}

impl Printer {
    /// Prints a message that came now; it may stay in a buffer until [`Printer::flush`].
    pub fn print(&mut self, message: &Publish<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        if let Err(error) = self.layout.put(message, &mut line) {
            eprintln!("Error: {error}");
        }
        self.out.write_all(&line)
    }

    /// Once nothing more is there to print.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

enum Layout {
    Plain(Plain),
    Format(Format),
    Json,
}

impl Layout {
    /// Fails where a format cannot show the message.
    fn put(&self, message: &Publish<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Layout::Plain(plain) => plain.put(message, &Zoned::now(), out),
            Layout::Format(format) => return format.render(message, out),
            Layout::Json => put_json(message, Timestamp::now(), out),
        }
        Ok(())
    }
}

fn put_json(message: &Publish<'_>, now: Timestamp, out: &mut Vec<u8>) {
    let mut line = Object::new();
    line.text("time", &format!("{now:.6}"));
    message_line::put(&mut line, message);
    out.extend(line.finish().into_bytes());
    out.push(b'\n');
}

/// The payload, perhaps with something before it.
struct Plain {
    verbose: bool,
    colour: bool,
    terminal: bool,
    newline: bool,
    view: View,
}

impl Plain {
    fn put(&self, message: &Publish<'_>, now: &Zoned, out: &mut Vec<u8>) {
        let payload = self.view.show(message.payload);
        if self.verbose {
            self.put_head(message, now, out);
            let block = !matches!(self.view, View::Raw | View::Text) && payload.contains(&b'\n');
            out.push(if block { b'\n' } else { b' ' });
        }
        out.extend_from_slice(&payload);
        if self.newline {
            out.push(b'\n');
        }
    }

    fn put_head(&self, message: &Publish<'_>, now: &Zoned, out: &mut Vec<u8>) {
        let topic = message.topic.as_bytes();
        let topic = if self.terminal { view::text(topic) } else { topic.into() };
        if !self.colour {
            out.extend_from_slice(&topic);
            return;
        }
        let time = now.strftime("%H:%M:%S.%3f");
        out.extend(format!("{TIME}{time}{TIME:#} {TOPIC}").into_bytes());
        out.extend_from_slice(&topic);
        out.extend(format!("{TOPIC:#}").into_bytes());
        if message.retain {
            out.extend(format!(" {RETAINED}retained{RETAINED:#}").into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        output: OutputArgs,
    }

    /// What these flags print of a message, as if the output were a terminal or not.
    fn shown(words: &str, terminal: bool, message: &Publish<'_>) -> String {
        let words = Words::try_parse_from(["x"].into_iter().chain(words.split_whitespace()));
        let output = words.unwrap().output;
        let colour = output.color == clap::ColorChoice::Always;
        let Layout::Plain(plain) = output.layout(colour, terminal).unwrap() else {
            panic!("another layout")
        };
        let at = date(2026, 5, 6).at(22, 12, 0, 120_999_999).to_zoned(TimeZone::UTC).unwrap();
        let mut out = Vec::new();
        plain.put(message, &at, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_output_is_what_scripts_expect() {
        let message = Publish { retain: true, ..Publish::new("a/b", b"x\x1by") };
        assert_eq!(shown("", false, &message), "x\x1by\n");
        assert_eq!(shown("-v", false, &message), "a/b x\x1by\n");
        assert_eq!(shown("-v -N", false, &message), "a/b x\x1by");
    }

    #[test]
    fn a_terminal_is_not_to_be_harmed() {
        let message = Publish::new("a/\u{1b}b", b"x\x1by");
        assert_eq!(shown("", true, &message), "x\\x1by\n");
        assert_eq!(shown("-v", true, &message), "a/\\x1bb x\\x1by\n");
        assert_eq!(shown("--view raw", true, &message), "x\x1by\n");
    }

    #[test]
    fn colours_tell_time_topic_and_retained() {
        let message = Publish { retain: true, ..Publish::new("a/b", b"x") };
        let head = "\x1b[2m22:12:00.120\x1b[0m \x1b[36ma/b\x1b[0m";
        let marked = format!("{head} \x1b[33mretained\x1b[0m x\n");
        assert_eq!(shown("-v --color always", true, &message), marked);
        let live = Publish { retain: false, ..message };
        assert_eq!(shown("-v --color always", true, &live), format!("{head} x\n"));
        assert_eq!(shown("--color always", true, &message), "x\n");
    }

    #[test]
    fn views_of_many_lines_stand_below_the_topic() {
        let message = Publish::new("a", b"{\"x\":1}");
        assert_eq!(shown("-v --view json", false, &message), "a\n{\n  \"x\": 1\n}\n");
        assert_eq!(shown("-v --view auto", false, &Publish::new("a", b"5")), "a 5\n");
        assert_eq!(shown("-v --view text", false, &Publish::new("a", b"5\n6")), "a 5\n6\n");
    }

    #[test]
    fn json_lines_have_the_time_first() {
        let mut out = Vec::new();
        let at = Timestamp::new(1_588_799_520, 120_000).unwrap();
        put_json(&Publish::new("a", b"x"), at, &mut out);
        let line = concat!(
            r#"{"time":"2020-05-06T21:12:00.000120Z","topic":"a","qos":0,"#,
            "\"retain\":false,\"payload\":\"x\"}\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }
}
