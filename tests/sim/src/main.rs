//! Runs seeds: `zue-sim --seeds 2000 [--from 0] [--events 1500] [--break Name]`, or one seed with `SEED=n`.

use std::process::ExitCode;
use std::time::Instant;

use zue_sim::{Break, Options, Totals, search};

const USAGE: &str = "usage: zue-sim [--seeds N] [--from S] [--events M] [--break NAME]; SEED=n replays one seed";

struct Arguments {
    seeds: u64,
    from: u64,
    options: Options,
}

fn parse(mut words: impl Iterator<Item = String>, seed: Option<String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { seeds: 2000, from: 0, options: Options::default() };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"))?;
        match word.as_str() {
            "--seeds" => arguments.seeds = number(&word, &value)?,
            "--from" => arguments.from = number(&word, &value)?,
            "--events" => arguments.options.events = number(&word, &value)?,
            "--break" => {
                let named = Break::ALL.into_iter().find(|rule| format!("{rule:?}") == value);
                arguments.options.broken = Some(named.ok_or_else(|| format!("{value} is none of {:?}", Break::ALL))?);
            }
            _ => return Err(format!("{word} is unknown; {USAGE}")),
        }
    }
    if let Some(seed) = seed {
        (arguments.from, arguments.seeds) = (number("SEED", &seed)?, 1);
    }
    Ok(arguments)
}

fn number(word: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|error| format!("{word} {value}: {error}; {USAGE}"))
}

fn main() -> ExitCode {
    let Arguments { seeds, from, options } = match parse(std::env::args().skip(1), std::env::var("SEED").ok()) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let every = (seeds / 10).max(1);
    let progress = |totals: &Totals| {
        if totals.seeds.is_multiple_of(every) || totals.seeds == seeds {
            println!("{}", line(totals, began));
        }
    };
    match search(from..from.saturating_add(seeds), options, progress) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            let broken = options.broken.map_or_else(String::new, |rule| format!(" --break {rule:?}"));
            println!("{failure}");
            println!("replay: SEED={} zue-sim --events {}{broken}", failure.seed, options.events);
            ExitCode::FAILURE
        }
    }
}

fn line(totals: &Totals, began: Instant) -> String {
    let Totals { seeds, events, faults, elections, committed, acknowledged, reads } = *totals;
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    format!(
        "{seeds} seeds, {events} events ({} a second): {faults} faults, {elections} elections, {committed} records, \
         {acknowledged} answered appends, {reads} reads",
        events.saturating_mul(1000) / ms
    )
}
