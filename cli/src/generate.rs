//! `whimbrel completions` and `whimbrel man`: what a shell and man(1) are to know, made from the
//! flags themselves.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Failure;

/// Print the completions for a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
For this user alone:
  bash  whimbrel completions bash > ~/.local/share/bash-completion/completions/whimbrel
  zsh   whimbrel completions zsh > DIR/_whimbrel, where DIR is in $fpath
  fish  whimbrel completions fish > ~/.config/fish/completions/whimbrel.fish")]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

/// Write the man pages: whimbrel(1), and one for each command.
#[derive(Args, Debug)]
#[command(after_help = "\
For all users:   whimbrel man /usr/local/share/man/man1
To read one:     whimbrel man DIR, then man -l DIR/whimbrel-pub.1")]
pub struct Man {
    /// Folder to write to; made if it is not there.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// Prints the completions of `command`.
pub fn completions(args: &Completions, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "whimbrel", &mut script);
    match std::io::stdout().write_all(&script) {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(1, format!("cannot write the completions: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes the pages of `command` and of its commands below `args.dir`.
pub fn man(args: &Man, command: Command) -> Result<(), Failure> {
    let failed = |path: &Path, error| {
        Failure::new(1, format!("cannot write {}: {error}; give another DIR", path.display()))
    };
    std::fs::create_dir_all(&args.dir).map_err(|error| failed(&args.dir, error))?;
    for (name, page) in pages(command) {
        let path = args.dir.join(name);
        std::fs::write(&path, page).map_err(|error| failed(&path, error))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// File name and text of each page, those of commands of commands included.
fn pages(command: Command) -> Vec<(String, Vec<u8>)> {
    let mut command = command;
    command.build();
    let mut pages = Vec::new();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_string();
        // `help` only repeats the other pages.
        let is_shown = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
        waiting.extend(command.get_subcommands().filter(is_shown).cloned());
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command.display_name(&name)).manual("Whimbrel");
        // Writing to memory does not fail.
        let _ = man.render(&mut page);
        pages.push((format!("{name}.1"), page));
    }
    pages.sort();
    pages
}
