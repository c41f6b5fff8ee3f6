//! `whimbrel-simulator`: one seed in words, or many seeds as fast as the machine goes.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use whimbrel_simulator::{Mutation, Options, Outcome, run};

const USAGE: &str = "\
Usage: whimbrel-simulator --seed S [--verbose] | --seeds N [--from S] [--seconds T] [--threads N]
       [--steps N] [--mutation NAME] | --list-mutations

  --seed S          one run; prints it in words if it fails, or with --verbose
  --seeds N         so many runs, seeds from --from (default 1) on
  --seconds T       ends after this time, whatever is left
  --steps N         steps before a run goes quiet (default 4000)
  --mutation NAME   with a deliberate bug
  --lines N         lines of a replay (default 60)";

/// What the command line asks for.
struct Wishes {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    steps: u64,
    seconds: Option<u64>,
    threads: usize,
    lines: usize,
    verbose: bool,
    mutation: Option<Mutation>,
}

fn main() -> ExitCode {
    let wishes = match wishes() {
        Ok(Some(wishes)) => wishes,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic is told as a violation; where it came from only if somebody wants to know.
    if !wishes.verbose {
        std::panic::set_hook(Box::new(|_| {}));
    }
    match wishes.seed {
        Some(seed) => one(&wishes, seed),
        None => many(&wishes),
    }
}

fn wishes() -> Result<Option<Wishes>, String> {
    let mut wishes = Wishes {
        seed: None,
        seeds: 100,
        from: 1,
        steps: Options::new(0).steps,
        seconds: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        lines: 60,
        verbose: false,
        mutation: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--verbose" => wishes.verbose = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            "--list-mutations" => {
                Mutation::ALL.iter().for_each(|mutation| println!("{}", mutation.name()));
                return Ok(None);
            }
            _ => {
                let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
                let number = || value.parse::<u64>().map_err(|_| format!("{value}: not a number"));
                match flag.as_str() {
                    "--seed" => wishes.seed = Some(number()?),
                    "--seeds" => wishes.seeds = number()?,
                    "--from" => wishes.from = number()?,
                    "--steps" => wishes.steps = number()?,
                    "--seconds" => wishes.seconds = Some(number()?),
                    "--threads" => wishes.threads = number()?.max(1) as usize,
                    "--lines" => wishes.lines = number()? as usize,
                    "--mutation" => {
                        let mutation = Mutation::from_name(&value);
                        wishes.mutation = Some(mutation.ok_or(format!("no mutation {value}"))?);
                    }
                    _ => return Err(format!("unknown option {flag}")),
                }
            }
        }
    }
    Ok(Some(wishes))
}

fn options(wishes: &Wishes, seed: u64) -> Options {
    let (steps, mutation) = (wishes.steps, wishes.mutation);
    Options { steps, mutation, ..Options::new(seed) }
}

/// One run; in words if somebody wants to know.
fn one(wishes: &Wishes, seed: u64) -> ExitCode {
    let trace_lines = if wishes.verbose { usize::MAX } else { 0 };
    let outcome = run(Options { trace_lines, ..options(wishes, seed) });
    outcome.trace.iter().for_each(|line| println!("{line}"));
    match &outcome.violation {
        None => {
            println!(
                "seed {seed} passed: {} operations, {} restarts, {} deliveries",
                outcome.operations, outcome.restarts, outcome.delivered
            );
            ExitCode::SUCCESS
        }
        Some(_) => {
            print!("{}", replay(wishes, &outcome));
            ExitCode::FAILURE
        }
    }
}

/// Runs the seed again and keeps its last events.
fn replay(wishes: &Wishes, outcome: &Outcome) -> String {
    let Some(violation) = &outcome.violation else { return String::new() };
    let mut text = String::new();
    if !wishes.verbose {
        let again = run(Options { trace_lines: wishes.lines, ..outcome.options });
        again.trace.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    let Options { seed, steps, mutation, .. } = outcome.options;
    let bug = mutation.map_or(String::new(), |m| format!(" --mutation {}", m.name()));
    format!(
        "seed {seed} FAILED: invariant {}: {}\n{text}again: --seed {seed} --steps {steps}{bug} \
         --verbose\n",
        violation.invariant, violation.what
    )
}

/// Many runs on all processors, each world in one thread.
fn many(wishes: &Wishes) -> ExitCode {
    let begun = Instant::now();
    let until = wishes.seconds.map(|s| begun + Duration::from_secs(s));
    let (next, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (operations, restarts) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Vec<String>> = Mutex::default();
    let work = || {
        while until.is_none_or(|until| Instant::now() < until) {
            let at = next.fetch_add(1, Relaxed);
            if at >= wishes.seeds {
                return;
            }
            let outcome = run(options(wishes, wishes.from + at));
            operations.fetch_add(outcome.operations, Relaxed);
            restarts.fetch_add(outcome.restarts, Relaxed);
            if outcome.violation.is_none() {
                passed.fetch_add(1, Relaxed);
                continue;
            }
            let text = replay(wishes, &outcome);
            print!("{text}");
            if let Ok(mut failed) = failed.lock() {
                failed.push(outcome.options.seed.to_string());
            }
        }
    };
    std::thread::scope(|scope| {
        (0..wishes.threads).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner().unwrap_or_default();
    let (operations, seconds) = (operations.into_inner(), begun.elapsed().as_secs_f64());
    if !failed.is_empty() {
        println!("failed seeds: {}", failed.join(" "));
    }
    println!(
        "{} passed, {} failed; {operations} operations, {} restarts of the broker, in {seconds:.1} s \
         ({:.0} operations/s)",
        passed.into_inner(),
        failed.len(),
        restarts.into_inner(),
        operations as f64 / seconds
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
