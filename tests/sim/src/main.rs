//! Runs seeds: `zue-sim --seeds 2000 [--from 0] [--events 2000] [--break Name]`, or one seed with `SEED=n`. `--breaks` looks for every
//! rule that can be broken on purpose, one after the other.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use zue_sim::{Break, Done, Failure, FromBackup, Lost, MaintenanceCounts, Options, Totals, search};

const USAGE: &str =
    "usage: zue-sim [--seeds N] [--from S] [--events M] [--lines L] [--break NAME | --breaks]; SEED=n replays one seed";

struct Arguments {
    seeds: u64,
    from: u64,
    options: Options,
    /// Look for every broken rule.
    breaks: bool,
}

fn parse(mut words: impl Iterator<Item = String>, seed: Option<String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { seeds: 2000, from: 0, options: Options::default(), breaks: false };
    while let Some(word) = words.next() {
        if word == "--breaks" {
            arguments.breaks = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"))?;
        match word.as_str() {
            "--seeds" => arguments.seeds = number(&word, &value)?,
            "--from" => arguments.from = number(&word, &value)?,
            "--lines" => {
                arguments.options.lines = usize::try_from(number(&word, &value)?).unwrap_or(usize::MAX);
            }
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
    let Arguments { seeds, from, options, breaks } = match parse(std::env::args().skip(1), std::env::var("SEED").ok()) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if breaks {
        return find_all(from..from.saturating_add(seeds), options);
    }
    let began = Instant::now();
    let every = (seeds / 10).max(1);
    let progress = |totals: &Totals| {
        if totals.seeds.is_multiple_of(every) || totals.seeds == seeds {
            println!("{}", line(totals, began));
        }
    };
    match search(from..from.saturating_add(seeds), options, progress) {
        Ok(totals) => {
            for (kind, count) in totals.faults.iter() {
                println!("  {kind:?}: {count}");
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            match options.broken {
                None if options.events == Options::default().events => {
                    println!("replay: make sim SEED={}", failure.seed);
                }
                None => println!("replay: SEED={} zue-sim --events {}", failure.seed, options.events),
                Some(rule) => {
                    println!("replay: SEED={} zue-sim --events {} --break {rule:?}", failure.seed, options.events);
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// Breaks one rule after the other, and says which seed finds it.
fn find_all(seeds: Range<u64>, options: Options) -> ExitCode {
    let mut all = true;
    for rule in Break::ALL {
        let began = Instant::now();
        let found = search(seeds.clone(), Options { broken: Some(rule), ..options }, |_| {});
        let ms = began.elapsed().as_millis();
        match found {
            Ok(_) => println!("{rule:?}: NOT FOUND in {} seeds, {ms} ms", seeds.end - seeds.start),
            Err(Failure { seed, event, what, .. }) => {
                println!("{rule:?}: seed {seed}, event {event}, {ms} ms: {what}");
                continue;
            }
        }
        all = false;
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(totals: &Totals, began: Instant) -> String {
    let Totals { seeds, events, faults, fewest, done, maintenance, from_backup, lost } = *totals;
    let Done { elections, by_standbys, committed, acknowledged, reads, linearizable, trims, resets, aged_out } = done;
    let Lost { records: lossy, trimmed: trimmed_by_hand, given_up } = lost;
    let MaintenanceCounts { repairs, restored, mended, compactions, compacted, interrupted } = maintenance;
    let FromBackup { runs, restarts, died, known } = from_backup;
    let (faults, fewest_faults) = (faults.faults(), fewest.1);
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    format!(
        "{seeds} seeds, {events} events ({} a second): {faults} faults (at least {fewest_faults} a seed), {elections} elections ({by_standbys} by nodes that stood by), {committed} records, \
         {acknowledged} answered appends, {reads} reads, {linearizable} linearizable, \
         {trims} trims, {aged_out} records too old, {resets} replicas begun anew, {repairs} repairs of {restored} records, {mended} disks whole again, \
         {compactions} compactions of {compacted} segments, {interrupted} rewrites interrupted, {runs} runs from a restored log ({restarts} restarts before it led, {died} after its appointment had \
         died, {known} retries from before known), {lossy} runs in which records could be lost, {trimmed_by_hand} of them trimmed by hand, {given_up} given up",
        events.saturating_mul(1000) / ms
    )
}
