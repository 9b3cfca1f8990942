//! Limits of the structure. Whatever was beyond one when the limit came is listed by name; the lists only get shorter: an entry that
//! is not needed any more fails the test, too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use zue_structure::{Measures, Root, roots};

/// Modules in one circle.
const CIRCLE_MAX: usize = 3;
/// Crates that have a larger one, and how large it is.
const CIRCLES: &[(&str, usize)] = &[];

/// Rooms in one circle: the modules at a crate's root, each with all in it. A room knows only those below it.
const ROOMS_MAX: usize = 1;
/// Crates that have larger circles of rooms, and how large they are.
const ROOMS: &[(&str, usize)] = &[("node", 11), ("node/core", 2), ("tests/sim", 10)];

/// Files in a folder.
const FILES_MAX: usize = 15;
/// Folders that have more, and how many.
const FOLDERS: &[(&str, usize)] = &[];

/// Fields of a struct. Structs that are a file, a table of metrics or a resource have as many as those do.
const FIELDS_MAX: usize = 12;
/// Structs that have more, and how many.
const FIELDS: &[(&str, usize)] = &[
    // Resources of Kubernetes and the settings of a node: people write and read each field under its own name.
    ("operator/src/crd/mod.rs::ZueClusterSpec", 14),
    ("operator/src/crd/status.rs::ZueClusterStatus", 22),
    ("settings/src/args.rs::Args", 13),
    ("settings/src/limits.rs::LimitSettings", 20),
    ("tests/sim/src/world.rs::World", 15),
];

/// Lines of a function, its signature included.
const FUNCTION_MAX: usize = 74;

/// Doc comments that open with a question word, of all, in percent.
const QUESTIONS_MAX: usize = 1;

/// Assertions for a hundred functions, in the crates whose mistakes cost records: to go up. Only what a bug alone can break is asserted.
const ASSERTS_MIN: &[(&str, usize)] = &[("node/core", 46), ("node/log", 29)];

static CRATES: LazyLock<Vec<(Root, Measures)>> = LazyLock::new(|| {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let measured = |root: Root| (root.clone(), Measures::of(&checkout, &root));
    let crates: Vec<_> = roots(&checkout).into_iter().map(measured).collect();
    assert!(crates.len() > 10, "only {} crates were found", crates.len());
    crates
});

/// Compares what is beyond a limit with the list of it: nothing may be further beyond than it is listed.
fn check(found: impl Iterator<Item = (String, usize)>, listed: &[(&str, usize)]) {
    let found: BTreeMap<String, usize> = found.collect();
    let known = |name: &str| listed.iter().find(|(listed, _)| *listed == name).map_or(0, |(_, count)| *count);
    let beyond: Vec<_> = found.iter().filter(|(name, count)| **count > known(name)).collect();
    assert!(beyond.is_empty(), "beyond the limit: {beyond:?}");
    let needless: Vec<_> = listed.iter().filter(|(name, _)| !found.contains_key(*name)).collect();
    assert!(needless.is_empty(), "these keep to the limit; take them off the list: {needless:?}");
}

#[test]
fn few_modules_import_each_other_in_a_circle() {
    let sizes = CRATES.iter().map(|(root, measures)| (root.name.clone(), measures.circle_max()));
    check(sizes.filter(|(_, size)| *size > CIRCLE_MAX), CIRCLES);
}

#[test]
fn a_room_knows_only_those_below_it() {
    let sizes = CRATES.iter().map(|(root, measures)| (root.name.clone(), measures.circle_of_rooms_max()));
    check(sizes.filter(|(_, size)| *size > ROOMS_MAX), ROOMS);
}

#[test]
fn a_folder_can_be_read_at_a_glance() {
    let folders = CRATES.iter().flat_map(|(_, measures)| measures.folders.clone());
    check(folders.filter(|(_, files)| *files > FILES_MAX), FOLDERS);
}

#[test]
fn a_struct_is_one_thing() {
    let fields = CRATES.iter().flat_map(|(_, measures)| measures.fields.clone());
    check(fields.filter(|(_, fields)| *fields > FIELDS_MAX), FIELDS);
}

#[test]
fn a_function_fits_on_a_screen() {
    let functions = CRATES.iter().flat_map(|(_, measures)| &measures.function_lines);
    let long = functions.filter(|(lines, _)| *lines > FUNCTION_MAX);
    check(long.map(|(lines, name)| (name.clone(), *lines)), &[]);
}

#[test]
fn a_comment_names_a_thing_or_an_action() {
    for (root, measures) in CRATES.iter() {
        let percent = measures.questions * 100 / measures.comments.max(1);
        assert!(percent <= QUESTIONS_MAX, "{}: {percent} % of comments open with a question word", root.name);
    }
}

#[test]
fn the_rules_and_the_log_hold_their_invariants() {
    for (name, least) in ASSERTS_MIN {
        let (_, measures) = CRATES.iter().find(|(root, _)| root.name == *name).expect("the crate is there");
        let found = measures.asserts * 100 / measures.function_lines.len().max(1);
        assert!(found >= *least, "{name}: {found} assertions for a hundred functions, {least} are the least");
    }
}
