//! `otlake journal` on journals that are damaged, and the server before and after it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::mpsc::sync_channel;

use otlake::data_dir::DataDir;
use otlake::decode::{Encoding, decode};
use otlake::journal::{
    Append, CutRecord, Hooks, Journal, JournalConfig, MOMENT, Scan, batch, scan,
};
use otlake::memory::Budget;
use otlake::seal::recovery::recover;
use otlake::signal::{CutCause, Durability, SealId, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::load::logs;
use crate::support::outage::LakeAway;
use crate::support::{Server, ServerBuilder, data_dir, otlake, real_disk, sql};

/// Batches in a journal, with so many rows each: batch n has the records from (n - 1) * ROWS on.
const BATCHES: u64 = 30;
const ROWS: u64 = 20;

/// The length of a segment where there are to be several.
const SHORT: u64 = 12_000;

/// A data folder with a journal of [`BATCHES`] batches; a seal is cut behind each of `cuts`, numbered from 1.
fn journal(segment_bytes: u64, cuts: &[u64]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let data_dir = DataDir::open(&data_dir(&dir)).unwrap();
    let config = JournalConfig {
        dir: data_dir.journal(),
        segment_bytes,
        disk_bytes_max: 1 << 40,
        durability: Durability::Journal,
        moment: MOMENT,
    };
    let hooks = Hooks {
        deliver: Box::new(|_, _| None),
        staged_bytes: Box::new(|| 0),
        remembered: Box::new(Vec::new),
    };
    let journal = Journal::start(real_disk(), config, &Scan::default(), 0, hooks).unwrap();
    for sequence in 1..=BATCHES {
        let first = i64::try_from((sequence - 1) * ROWS).unwrap();
        let request = logs("a", first..first + i64::try_from(ROWS).unwrap());
        let body = prost::Message::encode_to_vec(&request);
        let reservation = Budget::new(1 << 30).empty();
        let rows = decode(Signal::Logs, Encoding::Protobuf, &body, 7, reservation).unwrap();
        let encoded = batch::encode(&rows.batches, None).unwrap();
        let (done, outcome) = sync_channel(1);
        journal.append(Append {
            rows,
            encoded,
            done: Box::new(move |outcome| done.send(outcome).unwrap()),
        });
        outcome.recv().unwrap().unwrap();
        if let Some(place) = cuts.iter().position(|cut| *cut == sequence) {
            let cut = CutRecord {
                seal: SealId(1 + u64::try_from(place).unwrap()),
                through: sequence,
                cause: CutCause::Age,
                opened_unix_ms: 4_000_000_000_000,
                sealed_unix_ms: 4_000_000_000_001,
            };
            journal.cut(cut).unwrap();
        }
    }
    journal.finish();
    dir
}

/// The journal's segments.
fn segments(dir: &TempDir) -> Vec<PathBuf> {
    let scan = real_disk().list(&data_dir(dir).join("journal")).unwrap();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "journal");
    scan.into_iter().filter(is_segment).collect()
}

/// Everything in the journal's folder.
fn content(dir: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = real_disk().list(&data_dir(dir).join("journal")).unwrap();
    let files = paths.into_iter().filter(|path| path.is_file());
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
}

/// Where the first frame of a kind begins.
fn frame_of_kind(path: &Path, kind: u8) -> Option<usize> {
    let content = fs::read(path).unwrap();
    let begin = [&b"OJF1"[..], &[kind]].concat();
    let at = content
        .windows(5)
        .step_by(8)
        .position(|window| window == begin);
    at.map(|at| at * 8)
}

fn run(dir: &TempDir, args: &[&str]) -> Output {
    let mut command = otlake();
    command.args(args).arg("--data-dir").arg(data_dir(dir));
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

fn inspection(dir: &TempDir, code: i32) -> Value {
    let output = run(dir, &["journal", "inspect", "--json"]);
    serde_json::from_str(&said(&output, code).0).unwrap()
}

/// What the server says that does not start on this folder.
fn refusal(dir: &TempDir) -> String {
    let ports = [
        "--grpc-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ];
    let output = run(dir, &[&["serve"], &ports[..]].concat());
    said(&output, 1).1
}

/// Starts the server, stops it, and answers which batches are in the lake; each row must be there once.
fn served(dir: TempDir) -> (TempDir, BTreeSet<u64>) {
    let server = ServerBuilder::again(dir)
        .args(&["--seal-max-age", "1h"])
        .start();
    let (_, dir) = server.stop();
    let query = format!(
        "SELECT CAST(substr(body, 8) AS BIGINT) // {ROWS} + 1 AS batch, count(*), count(DISTINCT body) FROM otlp_logs GROUP BY ALL"
    );
    let rows = sql(&data_dir(&dir), &query);
    let whole = rows.iter().map(|row| {
        assert_eq!(
            row[1..],
            [ROWS.to_string(), ROWS.to_string()],
            "batch {}",
            row[0]
        );
        row[0].parse().unwrap()
    });
    let batches = whole.collect();
    (dir, batches)
}

fn all_but(missing: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    let missing: BTreeSet<u64> = missing.into_iter().collect();
    (1..=BATCHES)
        .filter(|batch| !missing.contains(batch))
        .collect()
}

/// Scenario: bytes change in the middle of a segment, one in the middle is gone, one is cut off, one begins with garbage.
/// Guarantees: the server refuses and names the file and the two commands; a repair without the flag shows what would be
/// lost and changes nothing; with it the damaged file is kept, the batches that are given up are told, and every row of
/// the others is in the lake once.
#[test]
fn damage_costs_what_is_told_and_no_more() {
    type Damage = fn(&[PathBuf]);
    let damages: [(&str, Damage); 4] = [
        ("does not have its checksum", |segments| {
            change(&segments[1], |content| {
                let middle = content.len() / 2;
                content[middle..middle + 10].fill(7);
            });
        }),
        ("segment 3 before it is missing", |segments| {
            fs::remove_file(&segments[2]).unwrap();
        }),
        ("the file ends inside a frame", |segments| {
            change(&segments[1], |content| {
                content.truncate(content.len() * 2 / 3)
            });
        }),
        ("", |segments| {
            change(&segments[2], |content| content[..8000].fill(0xee));
        }),
    ];
    for (what, damage) in damages {
        let dir = journal(SHORT, &[]);
        let before = inspection(&dir, 0);
        assert_eq!(before["last_sequence"], BATCHES);
        let files = segments(&dir);
        assert!(files.len() > 4, "{files:?}");
        damage(&files);
        let damaged = content(&dir);

        let error = refusal(&dir);
        for part in [
            what,
            ".journal at byte ",
            " journal inspect --data-dir ",
            " journal repair --skip-damaged --data-dir ",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let found = inspection(&dir, 1);
        let place = &found["damage"][0];
        let (first, last) = (&place["first_missing"], &place["last_missing"]);
        let (first, last) = (first.as_u64().unwrap(), last.as_u64().unwrap());
        assert_eq!(found["damage"].as_array().unwrap().len(), 1, "{found}");
        assert!(last - first < 12, "{found}");
        let told = if first == last {
            format!("missing: batch {first}")
        } else {
            format!("missing: {} batches, {first} to {last}", last - first + 1)
        };

        let (shown, error) = said(&run(&dir, &["journal", "repair"]), 1);
        assert!(shown.contains(&told), "{told} is not in {shown}");
        assert!(error.contains("nothing was changed"), "{error}");
        assert_eq!(content(&dir), damaged);

        let (shown, _) = said(&run(&dir, &["journal", "repair", "--skip-damaged"]), 0);
        for part in [&told, "nowhere else"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        for (path, bytes) in &damaged {
            let kept = path.parent().unwrap().join("damaged");
            let kept = kept.join(format!("{}.1", path.file_name().unwrap().display()));
            let is_kept = shown.contains(&*kept.to_string_lossy());
            assert_eq!(kept.exists(), is_kept, "{shown}");
            assert!(!is_kept || fs::read(&kept).unwrap() == *bytes);
        }
        assert_eq!(inspection(&dir, 0)["missing_batches"], 0);
        let (shown, _) = said(&run(&dir, &["journal", "repair", "--skip-damaged"]), 0);
        assert!(shown.starts_with("nothing to repair"), "{shown}");
        let (_, batches) = served(dir);
        assert_eq!(batches, all_but(first..=last));
    }
}

/// Scenario: of three seals the first is staged; batches of each and of none are damaged.
/// Guarantees: what is staged is not lost, and told so; the damaged batches of the others are.
#[test]
fn staged_seals_lose_nothing() {
    let dir = journal(SHORT, &[8, 16, 24]);
    let journal_dir = data_dir(&dir).join("journal");
    let whole = scan(&*real_disk(), &journal_dir).unwrap();
    let staged = data_dir(&dir).join("staged");
    recover(
        &*real_disk(),
        &whole,
        &staged,
        |_| Ok::<_, ()>(false),
        |_, _| false,
    )
    .unwrap();
    for seal in [2, 3] {
        fs::remove_dir_all(staged.join(SealId(seal).to_string())).unwrap();
    }
    let mut lost = BTreeSet::new();
    for path in segments(&dir) {
        let Some(at) = frame_of_kind(&path, 2) else {
            continue; // The last one has the orderly end alone.
        };
        let sequence = fs::read(&path).unwrap()[at + 16];
        lost.insert(u64::from(sequence));
        change(&path, |content| content[at + 60] ^= 1);
    }
    let found = inspection(&dir, 1);
    assert_eq!(found["missing_batches"], lost.len());
    let (shown, _) = said(&run(&dir, &["journal", "repair", "--skip-damaged"]), 0);
    for part in [
        "seal 1 is staged: nothing of that is lost",
        "seal 2 is neither staged nor in the lake",
        "no seal had this yet",
        " staged or in the lake)",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let (_, batches) = served(dir);
    assert_eq!(
        batches,
        all_but(lost.into_iter().filter(|batch| *batch > 8))
    );
}

/// Scenario: a seal is in the lake, then its cut is damaged in the journal that still has its batches.
/// Guarantees: the repair knows by the lake what the seal holds; no row is stored twice, none is lost.
#[tokio::test]
async fn a_lost_cut_of_a_published_seal_stores_nothing_twice() {
    let dir = journal(1 << 30, &[12]);
    let server = ServerBuilder::again(dir)
        .args(&["--seal-max-age", "1h"])
        .start();
    crate::support::eventually("the publish", async || {
        server.count("SELECT count(*) FROM otlp_logs") == i64::try_from(12 * ROWS).unwrap()
    })
    .await;
    let dir = server.kill();
    let path = segments(&dir).remove(0);
    let at = frame_of_kind(&path, 3).unwrap();
    change(&path, |content| content[at + 20] ^= 1);
    let (shown, _) = said(&run(&dir, &["journal", "inspect"]), 1);
    assert!(shown.contains("no batch is missing by it"), "{shown}");
    let (shown, _) = said(&run(&dir, &["journal", "repair", "--skip-damaged"]), 0);
    assert!(
        shown.contains("seal 1 holds the batches up to 12"),
        "{shown}"
    );
    let (_, batches) = served(dir);
    assert_eq!(batches, all_but([]));
}

/// Scenario: a published seal's cut and one of its batches are damaged while the journal still has them, and the catalog is
/// away.
/// Guarantees: no repair, and nobody says what is not in the lake, until the catalog is back; then nothing is stored twice.
#[tokio::test]
async fn a_repair_waits_for_the_catalog() {
    let dir = journal(1 << 30, &[12]);
    let server = ServerBuilder::again(dir)
        .args(&["--seal-max-age", "1h"])
        .start();
    crate::support::eventually("the publish", async || {
        server.count("SELECT count(*) FROM otlp_logs") == i64::try_from(12 * ROWS).unwrap()
    })
    .await;
    let dir = server.kill();
    let path = segments(&dir).remove(0);
    for kind in [2, 3] {
        let at = frame_of_kind(&path, kind).unwrap();
        change(&path, |content| content[at + 60] ^= 1);
    }
    let names = ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"];
    let data = data_dir(&dir);
    let away = data.join("away");
    fs::create_dir(&away).unwrap();
    let present: Vec<_> = names
        .iter()
        .filter(|name| data.join(name).exists())
        .collect();
    for name in &present {
        fs::rename(data.join(name), away.join(name)).unwrap();
    }
    let damaged = content(&dir);
    // Both the server's file and the lake's folder tell that there was a catalog, and the folder alone does.
    for name in ["", "lake.json"] {
        if !name.is_empty() {
            fs::rename(data.join(name), away.join(name)).unwrap();
        }
        let (shown, _) = said(&run(&dir, &["journal", "inspect"]), 1);
        let repair = ["journal", "repair", "--skip-damaged"];
        let (_, error) = said(&run(&dir, &repair), 1);
        assert!(shown.contains("the lake cannot be asked"), "{shown}");
        for wrong in ["nowhere else", "neither staged nor in the lake", "give up"] {
            assert!(!shown.contains(wrong), "{wrong} is in {shown}");
        }
        for part in ["catalog.sqlite is gone", "the lake must be readable"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        assert_eq!(content(&dir), damaged);
    }
    for name in present.into_iter().chain(&["lake.json"]) {
        fs::rename(away.join(name), data.join(name)).unwrap();
    }
    let (shown, _) = said(&run(&dir, &["journal", "repair", "--skip-damaged"]), 0);
    assert!(shown.contains("seal 1 is in the lake"), "{shown}");
    let (_, batches) = served(dir);
    assert_eq!(batches, all_but([]));
}

/// Scenario: queries without a server, while requests are in the journal alone, while a seal is staged because the lake was
/// away in the stop, and once everything is in the lake.
/// Guarantees: one line on stderr counts what the query cannot see; it is not there when there is nothing to say.
#[tokio::test]
async fn a_query_tells_what_waits_for_a_server() {
    let dir = journal(1 << 30, &[12]);
    let start = |dir| {
        ServerBuilder::again(dir)
            .args(&["--seal-max-age", "1h", "--shutdown-grace", "2s"])
            .start()
    };
    let note = |dir: &TempDir| said(&run(dir, &["query", "FROM otlp_logs"]), 0).1;
    let server = start(dir);
    crate::support::eventually("the publish", async || {
        server.count("SELECT count(*) FROM otlp_logs") == i64::try_from(12 * ROWS).unwrap()
    })
    .await;
    let dir = server.kill();
    assert_eq!(
        note(&dir),
        "note: not in the lake yet: 18 requests in the journal; start otlake to bring that there\n"
    );
    let server = start(dir);
    let away = LakeAway::take(&server.data_dir());
    let (_, dir) = server.stop();
    away.put_back();
    assert_eq!(
        note(&dir),
        "note: not in the lake yet: 360 rows staged; start otlake to bring that there\n"
    );
    let (dir, batches) = served(dir);
    assert_eq!(batches, all_but([]));
    assert_eq!(note(&dir), "");
}

/// Scenario: both commands while a server runs, and on a folder without a journal.
/// Guarantees: inspect answers and names the server; repair refuses as a second server does; a folder is not made.
#[test]
fn a_running_server_keeps_its_journal() {
    let server = Server::start();
    let shown = said(&run(&server.dir, &["journal", "inspect"]), 0).0;
    let process = format!("process {} runs", server.child.id());
    assert!(shown.contains(&process), "{shown}");
    let repair = ["journal", "repair", "--skip-damaged"];
    let error = said(&run(&server.dir, &repair), 1).1;
    assert!(error.contains("in use by another otlake"), "{error}");

    let empty = TempDir::new().unwrap();
    for args in [&repair[..], &["journal", "inspect"]] {
        let error = said(&run(&empty, args), 1).1;
        assert!(error.contains("there is no journal in"), "{error}");
    }
    assert!(!data_dir(&empty).exists());
}

/// Scenario: the end of the journal was being written when the power went.
/// Guarantees: that is no damage: inspect says that the next start cuts it off, repair has nothing to do, serve starts.
#[test]
fn a_torn_end_is_no_damage() {
    let dir = journal(SHORT, &[]);
    let last = segments(&dir).pop().unwrap();
    change(&last, |content| {
        content.extend_from_slice(b"OJF1 half a frame")
    });
    let shown = said(&run(&dir, &["journal", "inspect"]), 0).0;
    assert!(shown.contains("nothing is damaged"), "{shown}");
    assert!(shown.contains("17 bytes from byte"), "{shown}");
    let shown = said(&run(&dir, &["journal", "repair"]), 0).0;
    assert!(shown.contains("the next start cuts off its end"), "{shown}");
    let (_, batches) = served(dir);
    assert_eq!(batches, all_but([]));
}
