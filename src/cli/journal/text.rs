//! `otlake journal` for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use super::super::table::{self, bytes, columns, count, counted, facts};
use super::Found;
use super::seals::Place as SealPlace;
use crate::journal::inspect::{Inspection, Place};
use crate::journal::repair::Repair;
use crate::signal::SealId;

/// Seals that are listed by number.
const SEALS_LISTED_MAX: usize = 10;

/// Everything about a journal.
pub(super) fn inspection(found: &Found) -> String {
    let inspection = &found.inspection;
    let dir = inspection.dir.display();
    let state = match inspection.places.len() as u64 + inspection.places_more {
        0 => "nothing is damaged".to_owned(),
        places => format!("damaged in {}", counted(places, "place")),
    };
    let mut out = format!("The journal in {dir}: {state}\n");
    let mut section = |title: &str, body: String| {
        let _ = write!(out, "{title}{body}\n\n"); // Writing to a String cannot fail.
    };
    section("", facts(&journal_facts(found)));
    if !inspection.segments.is_empty() {
        section("Segments\n", segments(inspection));
    }
    if inspection.is_damaged() {
        section("Damage\n", places(found));
    }
    if !inspection.spares.is_empty() {
        let spares = counted(inspection.spares.len() as u64, "spare segment");
        section(
            "",
            format!("{spares} to be written over: nothing in them counts"),
        );
    }
    if !inspection.others.is_empty() {
        let names = inspection
            .others
            .iter()
            .map(|path| format!("  {}", name(path)));
        section("Not looked at\n", names.collect::<Vec<_>>().join("\n"));
    }
    out.trim_end().to_owned()
}

fn journal_facts(found: &Found) -> Vec<(&'static str, String)> {
    let inspection = &found.inspection;
    let sum = |of: fn(&crate::journal::inspect::Segment) -> u64| -> u64 {
        inspection.segments.iter().map(of).sum()
    };
    let mut facts = vec![
        (
            "segments",
            format!(
                "{}, {}",
                count(inspection.segments.len() as u64),
                bytes(sum(|segment| segment.bytes))
            ),
        ),
        (
            "batches",
            format!(
                "{} with {}, {}",
                count(sum(|segment| segment.batches)),
                table::rows(sum(|segment| segment.rows)),
                span(inspection)
            ),
        ),
        ("seals", cuts(inspection)),
    ];
    if let Some(torn) = &inspection.torn {
        let next = match found.server {
            Some(_) => "it is being written",
            None if torn.is_overwritten => {
                "left from an earlier use of the file, or not known to have been synced; the next start cuts it off"
            }
            None => "not known to have been synced; the next start cuts it off",
        };
        let end = format!(
            "{} from byte {} of {} on are not whole: {next}",
            counted(torn.bytes, "byte"),
            torn.offset,
            name(&torn.path)
        );
        facts.push(("end", end));
    }
    if let Some(pid) = found.server {
        let text = format!("process {pid} runs and writes here: look again for what it adds");
        facts.push(("server", text));
    }
    if let Some(trouble) = &found.seals.trouble {
        facts.push(("lake", trouble.clone()));
    }
    facts
}

fn span(inspection: &Inspection) -> String {
    if inspection.last_sequence <= inspection.before_first {
        return format!("none behind batch {}", inspection.last_sequence);
    }
    let first = inspection.before_first + 1;
    format!("from {first} to {}", inspection.last_sequence)
}

fn cuts(inspection: &Inspection) -> String {
    let Some(last) = inspection.cuts.last() else {
        return "none cut".to_owned();
    };
    let open = inspection.last_sequence.saturating_sub(last.through);
    format!(
        "{} cut; the last is seal {}, up to batch {}, with {} behind it",
        count(inspection.cuts.len() as u64),
        last.seal.0,
        last.through,
        batches(open)
    )
}

fn segments(inspection: &Inspection) -> String {
    let rows: Vec<_> = inspection
        .segments
        .iter()
        .map(|segment| {
            let frames = |kind| count(segment.frames.get(kind).copied().unwrap_or(0));
            let others = ["note", "idle", "close", "gap"];
            let others = others.iter().filter_map(|kind| segment.frames.get(kind));
            let sequences = segment.sequences.map_or_else(
                || "-".to_owned(),
                |(first, last)| format!("{first} to {last}"),
            );
            let known = |text: String| {
                if text.is_empty() {
                    "lost".to_owned()
                } else {
                    text
                }
            };
            let made = match segment.created_unix_ms {
                0 => String::new(),
                made => table::utc(made),
            };
            vec![
                name(&segment.path),
                known(made),
                known(segment.version.clone()),
                sequences,
                count(segment.batches),
                count(segment.rows),
                frames("cut"),
                count(others.sum()),
                bytes(segment.bytes),
            ]
        })
        .collect();
    let header = [
        "file",
        "made at (UTC)",
        "otlake",
        "sequences",
        "batches",
        "rows",
        "cuts",
        "other frames",
        "bytes",
    ];
    columns(&header, &rows, 4)
}

/// Each damaged place: where, what, and what is missing by it.
fn places(found: &Found) -> String {
    let inspection = &found.inspection;
    let mut lines = Vec::new();
    for place in &inspection.places {
        lines.push(format!("  {}", headline(place)));
        lines.extend(
            missing(found, place)
                .into_iter()
                .map(|line| format!("    {line}")),
        );
    }
    if inspection.places_more > 0 {
        lines.push(format!(
            "  and {} more",
            counted(inspection.places_more, "place")
        ));
    }
    lines.join("\n")
}

fn headline(place: &Place) -> String {
    let size = match place.bytes {
        0 => String::new(),
        size => format!(", {}", counted(size, "byte")),
    };
    format!(
        "{} at byte {}{size}: {}",
        name(&place.path),
        place.offset,
        place.what
    )
}

fn missing(found: &Found, place: &Place) -> Vec<String> {
    let Some(range) = &place.missing else {
        let text = if place.is_bounded {
            "no batch is missing by it"
        } else {
            "nothing tells which batches are missing by it: there is no whole frame on one side"
        };
        return vec![text.to_owned()];
    };
    let rows = match place.rows {
        Some(rows) if range.start() == range.end() => format!(", {}", table::rows(rows)),
        Some(rows) => format!(", of which the first had {}", table::rows(rows)),
        None => String::new(),
    };
    let mut lines = vec![format!("missing: {}{rows}", sequences(range))];
    let mut by_place: BTreeMap<SealPlace, Vec<SealId>> = BTreeMap::new();
    for (seal, _) in found.inspection.by_seal(range) {
        match seal {
            Some(seal) => by_place
                .entry(found.seals.place(seal))
                .or_default()
                .push(seal),
            None if found.seals.trouble.is_some() => {
                lines.push(
                    "no cut of a seal with this is known, and the lake cannot be asked".to_owned(),
                );
            }
            None => lines.push("no seal had this yet: it is nowhere else".to_owned()),
        }
    }
    let told = by_place.into_iter().map(|(place, seals)| {
        let (listed, are) = seal_list(&seals);
        match place {
            SealPlace::Lake => format!("{listed} {are} in the lake: nothing of that is lost"),
            SealPlace::Staged => format!("{listed} {are} staged: nothing of that is lost"),
            SealPlace::Unknown => {
                format!("if {listed} {are} in the lake already, nothing of that is lost")
            }
            SealPlace::Journal => {
                format!("{listed} {are} neither staged nor in the lake: this is nowhere else")
            }
        }
    });
    lines.extend(told);
    lines
}

fn seal_list(seals: &[SealId]) -> (String, &'static str) {
    let numbers: Vec<_> = seals.iter().map(|seal| seal.0.to_string()).collect();
    match (numbers.as_slice(), seals) {
        ([one], _) => (format!("seal {one}"), "is"),
        (few, _) if few.len() <= SEALS_LISTED_MAX => (format!("seals {}", few.join(", ")), "are"),
        (many, [first, .., last]) => (
            format!("{} seals from {} to {}", many.len(), first.0, last.0),
            "are",
        ),
        _ => ("no seal".to_owned(), "is"),
    }
}

/// What a repair would give up.
pub(super) fn would_give_up(found: &Found) -> String {
    format!("A repair gives up {}\n{}", given_up(found), places(found))
}

/// What a repair gave up, and where the damaged files are.
pub(super) fn repaired(found: &Found, repair: &Repair) -> String {
    let mut out = format!(
        "Repaired, giving up {}\n{}\n",
        given_up(found),
        places(found)
    );
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(out, "\n{title}\n  {}\n", lines.join("\n  "));
        }
    };
    let kept = repair
        .replaced
        .iter()
        .map(|(_, kept)| kept.display().to_string());
    section("The damaged files are kept", kept.collect());
    let made = repair.made.iter().map(|path| path.display().to_string());
    section("Made again, empty", made.collect());
    let cuts = repair.cuts.iter().map(|cut| {
        let through = cut.through;
        format!("seal {} holds the batches up to {through}", cut.seal.0)
    });
    section(
        "Written again, known from the lake or the staged files",
        cuts.collect(),
    );
    let _ = write!(
        out,
        "\nEverything else is whole: `otlake serve` takes it up."
    );
    out
}

/// How much a repair gives up, in a few words.
pub(super) fn given_up(found: &Found) -> String {
    let inspection = &found.inspection;
    let is_safe = |seal: Option<SealId>| seal.is_some_and(|seal| found.seals.place(seal).is_safe());
    let (mut safe, mut rows, mut are_rows_known) = (0, 0, true);
    let mut before = None;
    for place in &inspection.places {
        let Some(range) = place
            .missing
            .as_ref()
            .filter(|range| before != Some(*range))
        else {
            continue;
        };
        before = Some(range);
        for (seal, part) in inspection.by_seal(range) {
            match place.rows.filter(|_| range.start() == range.end()) {
                _ if is_safe(seal) => safe += part.end() - part.start() + 1,
                Some(known) => rows += known,
                None => are_rows_known = false,
            }
        }
    }
    let lost = inspection.missing_batches.saturating_sub(safe);
    let rows = match rows {
        0 => String::new(),
        rows if are_rows_known => format!(" with {}", table::rows(rows)),
        rows => format!(" with {} or more", table::rows(rows)),
    };
    let is_unknown = inspection.places.iter().any(|place| !place.is_bounded);
    let unknown = if is_unknown {
        " and what stood where nothing tells"
    } else {
        ""
    };
    match (lost, safe) {
        (0, 0) if is_unknown => "what stood where nothing tells".to_owned(),
        (0, 0) => "no batch".to_owned(),
        (0, safe) if is_unknown => {
            let safe = batches(safe);
            format!("what stood where nothing tells ({safe} are staged or in the lake)")
        }
        (0, 1) => "nothing: the batch that is missing is staged or in the lake".to_owned(),
        (0, safe) => format!(
            "nothing: the {} that are missing are staged or in the lake",
            batches(safe)
        ),
        (lost, 0) => format!("{}{rows}{unknown}", batches(lost)),
        (lost, safe) => format!(
            "{}{rows}{unknown} ({} more {} staged or in the lake)",
            batches(lost),
            count(safe),
            if safe == 1 { "is" } else { "are" }
        ),
    }
}

/// Why there is nothing to repair.
pub(super) fn nothing_to_repair(found: &Found) -> String {
    let dir = found.inspection.dir.display();
    let torn = match found.inspection.torn {
        Some(_) => "; the next start cuts off its end, which is not known to have been synced",
        None => "",
    };
    format!("nothing to repair: the journal in {dir} is not damaged{torn}")
}

fn batches(number: u64) -> String {
    match number {
        1 => "1 batch".to_owned(),
        number => format!("{} batches", count(number)),
    }
}

fn sequences(range: &RangeInclusive<u64>) -> String {
    match range.end() - range.start() {
        0 => format!("batch {}", range.start()),
        more => format!(
            "{}, {} to {}",
            batches(more + 1),
            range.start(),
            range.end()
        ),
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
