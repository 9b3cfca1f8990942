//! The simulation as a test: thousands of seeds hold every invariant, and every rule that is broken on purpose is found.
//! `SEEDS=n` runs as many; `SEED=n` runs that one only.

use zue_sim::{Break, FromBackup, MaintenanceCounts, Options, replay, run, search};

const SEEDS: u64 = 5000;
/// Every broken rule is found within so many seeds.
const BREAK_SEEDS: u64 = 5000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn every_seed_holds_every_invariant() {
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    match search(seeds, Options::default(), |_| {}) {
        Ok(totals) => {
            println!("{totals:?}");
            let (events, faults) = totals.fewest;
            assert!(events >= 2000 && faults >= 10, "a seed has only {events} events and {faults} faults");
            if totals.seeds >= 1000 {
                let never: Vec<_> = totals.faults.iter().filter(|(_, count)| *count == 0).collect();
                assert!(never.is_empty(), "these faults never happen: {never:?}");
                let often = totals.seeds / 50;
                assert!(
                    totals.done.trims > 20 * often && totals.done.resets > often,
                    "logs are hardly ever trimmed: {totals:?}"
                );
                let MaintenanceCounts { repairs, restored, mended, compactions, compacted, interrupted } =
                    totals.maintenance;
                let rarest = [repairs, restored, mended, compactions, compacted, interrupted].into_iter().min();
                assert!(rarest >= Some(often / 4), "logs are hardly looked after: {:?}", totals.maintenance);
                let FromBackup { runs, restarts, died, known } = totals.from_backup;
                assert!(runs > often && restarts > often, "restored logs hardly ever begin: {:?}", totals.from_backup);
                assert!(
                    died > often / 8 && known > often,
                    "what is restored is hardly ever tried: {:?}",
                    totals.from_backup
                );
                assert!(totals.done.by_standbys > often, "nodes hardly ever elect by themselves: {totals:?}");
                assert!(totals.lost.given_up < often, "too many runs end without rest: {totals:?}");
            }
        }
        Err(failure) => panic!("{failure}\nreplay it with SEED={}", failure.seed),
    }
}

#[test]
fn equal_seeds_are_equal_runs() {
    let mut hashes: Vec<u64> = (0..20)
        .map(|seed| {
            let report = run(seed, Options::default()).unwrap();
            assert_eq!(Ok(report), replay(seed, Options::default()).map_err(|failure| failure.what));
            report.trace_hash
        })
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn every_rule_broken_on_purpose_is_found() {
    for rule in Break::ALL {
        let options = Options { broken: Some(rule), ..Options::default() };
        match search(0..BREAK_SEEDS, options, |_| {}) {
            Ok(_) => panic!("{rule:?} was not found in {BREAK_SEEDS} seeds"),
            Err(failure) => println!("{rule:?}: seed {}, event {}: {}", failure.seed, failure.event, failure.what),
        }
    }
}
