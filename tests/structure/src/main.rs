//! Prints the table of a checkout, of the current directory if none is named; with the name of a crate behind it, what is behind that
//! crate's figures.

use std::path::PathBuf;

use zue_structure::{Measures, roots};

fn main() {
    let named = std::env::args().nth(2);
    let checkout = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    if let Some(named) = named {
        for root in roots(&checkout).iter().filter(|root| root.name == named) {
            show(&Measures::of(&checkout, root));
        }
        return;
    }
    println!(
        "| crate | files | largest circle, of rooms | folder max | fields max | fn p90 / max | asserts / fn | question openings |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for root in roots(&checkout) {
        let measures = Measures::of(&checkout, &root);
        let functions = measures.function_lines.len().max(1);
        let hundredths = |part: usize, all: usize| part * 100 / all.max(1);
        let asserts = hundredths(measures.asserts, functions);
        println!(
            "| {} | {} | {}, {} | {} | {} | {} / {} | {}.{:02} | {} % of {} |",
            root.name,
            measures.files,
            measures.circle_max(),
            measures.circle_of_rooms_max(),
            measures.folder_max(),
            measures.fields_max(),
            measures.function_p90(),
            measures.function_max(),
            asserts / 100,
            asserts % 100,
            hundredths(measures.questions, measures.comments),
            measures.comments,
        );
    }
}

/// Says what is behind the figures of a crate.
fn show(measures: &Measures) {
    for circle in &measures.circles {
        println!("circle of {}: {}", circle.len(), circle.join(", "));
    }
    for circle in &measures.circles_of_rooms {
        println!("circle of {} rooms: {}", circle.len(), circle.join(", "));
    }
    for (folder, count) in measures.folders.iter().filter(|(_, count)| **count > 10) {
        println!("{folder}: {count} files");
    }
    for (name, count) in measures.fields.iter().filter(|(_, count)| **count > 10) {
        println!("{name}: {count} fields");
    }
    for (lines, name) in measures.function_lines.iter().rev().take(10) {
        println!("{name}: {lines} lines");
    }
}
