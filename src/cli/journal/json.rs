//! `otlake journal inspect --json`.

use serde_json::{Value, json};

use super::super::table::utc_json;
use super::Found;
use super::seals::Place as SealPlace;
use crate::journal::inspect::{Place, Segment};

/// Everything about a journal; null is what is lost or not known.
pub(super) fn inspection(found: &Found) -> Value {
    let inspection = &found.inspection;
    json!({
        "dir": inspection.dir.display().to_string(),
        "damaged": inspection.is_damaged(),
        "server_pid": found.server,
        "before_first": inspection.before_first,
        "last_sequence": inspection.last_sequence,
        "missing_batches": inspection.missing_batches,
        "damaged_bytes": inspection.damaged_bytes,
        "segments": inspection.segments.iter().map(segment).collect::<Vec<_>>(),
        "cuts": inspection.cuts.iter().map(|cut| json!({
            "seal_id": cut.seal.0,
            "through": cut.through,
            "cause": cut.cause.name(),
            "sealed_at": utc_json(cut.sealed_unix_ms),
        })).collect::<Vec<_>>(),
        "damage": inspection.places.iter().map(|at| place(found, at)).collect::<Vec<_>>(),
        "damage_more": inspection.places_more,
        "torn": inspection.torn.as_ref().map(|torn| json!({
            "file": torn.path.display().to_string(),
            "offset": torn.offset,
            "bytes": torn.bytes,
        })),
        "spares": inspection.spares.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "others": inspection.others.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "lake_error": found.seals.trouble,
    })
}

fn segment(segment: &Segment) -> Value {
    json!({
        "segment": segment.number,
        "file": segment.path.display().to_string(),
        "bytes": segment.bytes,
        "created_at": utc_json(segment.created_unix_ms),
        "version": (!segment.version.is_empty()).then_some(&segment.version),
        "frames": segment.frames,
        "batches": segment.batches,
        "rows": segment.rows,
        "first_sequence": segment.sequences.map(|(first, _)| first),
        "last_sequence": segment.sequences.map(|(_, last)| last),
        "damaged": segment.is_damaged,
    })
}

fn place(found: &Found, place: &Place) -> Value {
    let seals = place.missing.iter().flat_map(|missing| {
        let parts = found.inspection.by_seal(missing);
        parts.into_iter().map(|(seal, part)| {
            let where_it_is = seal.and_then(|seal| match found.seals.place(seal) {
                SealPlace::Lake => Some("lake"),
                SealPlace::Staged => Some("staged"),
                SealPlace::Journal => Some("journal"),
                SealPlace::Unknown => None,
            });
            json!({
                "seal_id": seal.map(|seal| seal.0),
                "in": where_it_is,
                "first": part.start(),
                "last": part.end(),
            })
        })
    });
    json!({
        "file": place.path.display().to_string(),
        "offset": place.offset,
        "bytes": place.bytes,
        "what": place.what,
        "first_missing": place.missing.as_ref().map(|missing| *missing.start()),
        "last_missing": place.missing.as_ref().map(|missing| *missing.end()),
        "missing_is_known": place.is_bounded,
        "first_rows": place.rows,
        "seals": seals.collect::<Vec<_>>(),
    })
}
