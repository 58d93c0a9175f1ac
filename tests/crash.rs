//! The server is killed at any moment, again and again, and the lake holds what was acknowledged, once.
//!
//! `scripts/torture` runs the test here with more rounds, through two variables:
//!
//! | variable | what |
//! |---|---|
//! | `OTLAKE_TORTURE_ROUNDS` | how often the server is killed; the folder is kept when the test fails |
//! | `OTLAKE_TORTURE_SEED` | which settings, deaths and moments are drawn; the clients' timing is never the same |

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use otlake::proto::admin::FlushRequest;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::crash_load::{BATCH, Count, CrashLoad, Random, Sent, Temper};
use crate::support::load::{logs, spans};
use crate::support::outage::LakeAway;
use crate::support::{Server, ServerBuilder, eventually};

/// Rounds when nothing else is asked for: each of [`SETTINGS`] and each [`Death`] comes at least once.
const ROUNDS: u64 = 6;

const SEED: u64 = 1;

/// What the server is started with, one after the other. Their number and that of the deaths have no common divisor, so
/// that in many rounds every death meets all settings.
const SETTINGS: [&[&str]; 5] = [
    &["--seal-max-age", "50ms"],
    &["--seal-max-age", "2s"],
    &["--seal-max-age", "100ms", "--durability", "lake"],
    &["--seal-max-age", "1s", "--seal-target-bytes", "32KiB"],
    &["--seal-max-age", "200ms", "--target-file-size", "64KiB"],
];

/// How a round ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// By SIGKILL while requests come in.
    Kill,
    /// By SIGKILL a little after a flush began.
    KillInFlush,
    /// By SIGKILL, and then the next server once more, so soon that it may not be ready.
    KillAndKillInStart,
    /// By SIGKILL a little after SIGTERM.
    KillInStop,
}

const DEATHS: [Death; 4] = [
    Death::Kill,
    Death::KillInFlush,
    Death::KillAndKillInStart,
    Death::KillInStop,
];

/// What happened, for the line that is printed.
#[derive(Debug, Default)]
struct Tally {
    killed_in_start: u64,
    stopped_first: u64,
}

/// Scenario: clients over all protocols send without a pause, some of them the same bytes until they are acknowledged,
/// while the server is killed at random moments, with changing settings: under load, in a flush, in a stop, in a start.
/// Guarantees: every acknowledged request is in the lake once and whole, retries included, and no other is there twice
/// or in part; nothing but UNAVAILABLE was ever said; a last kill with everything published brings nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_any_kill() {
    let asked = std::env::var("OTLAKE_TORTURE_ROUNDS").ok();
    let rounds = asked.as_ref().map_or(ROUNDS, |text| text.parse().unwrap());
    let seed = std::env::var("OTLAKE_TORTURE_SEED").map_or(SEED, |text| text.parse().unwrap());
    let mut dir = TempDir::new().unwrap();
    dir.disable_cleanup(asked.is_some());
    println!("seed {seed}, folder {}", dir.path().display());

    let started = Instant::now();
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let load = CrashLoad::start(&[Temper::GivesUp, Temper::Retries]);
    for round in 0..rounds {
        dir = run_round(dir, round, &load, &mut random, &mut tally).await;
    }

    let server = start(dir, rounds, SETTINGS[0]);
    load.aim(&server);
    let sent = load.finish().await;
    sent.assert_refusals_are_retryable();
    server.flush().await;
    let rows = sent.assert_exactly_once(&server.data_dir());
    let server = start(server.kill(), rounds + 1, SETTINGS[0]);
    server.flush().await;
    assert_eq!(sent.assert_exactly_once(&server.data_dir()), rows);

    println!(
        "rounds={rounds} seed={seed} acknowledged={} retried={} rows={rows} killed_in_start={} stopped_first={} \
         seconds={:.0}",
        sent.acknowledged.len(),
        sent.retried,
        tally.killed_in_start,
        tally.stopped_first,
        started.elapsed().as_secs_f64(),
    );
    let (status, mut dir) = tokio::task::block_in_place(|| server.stop());
    assert!(status.success());
    dir.disable_cleanup(false);
}

/// Scenario: under load the lake's folder is away, and the server is killed with seals on disk that wait for it; the next
/// start finds the folder in its place.
/// Guarantees: every acknowledged request is in the lake once and whole, retries over the start included.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_the_lake_is_away_loses_nothing() {
    let settings = ["--seal-max-age", "100ms"];
    let server = Server::with(&settings);
    let load = CrashLoad::start(&[Temper::GivesUp, Temper::Retries]);
    load.aim(&server);
    eventually("a commit", async || {
        server.status().await.committed_seals >= 1
    })
    .await;
    let away = LakeAway::take(&server.data_dir());
    eventually("staged seals", async || {
        server.status().await.staged_seals >= 5
    })
    .await;
    let dir = server.kill();
    load.aim_nowhere();
    away.put_back();
    let server = ServerBuilder::again(dir).args(&settings).start();
    load.aim(&server);
    let sent = load.finish().await;
    assert!(sent.retried > 0);
    sent.assert_refusals_are_retryable();
    server.flush().await;
    sent.assert_exactly_once(&server.data_dir());
}

/// Scenario: a lake in which one request is twice, one is in part, one is whole and one, said to be acknowledged, is not.
/// Guarantees: the count by which the test above lives says just that.
#[tokio::test]
async fn the_count_finds_what_is_lost_twice_and_in_part() {
    let server = Server::start();
    let mut client = server.logs().await;
    for seqs in [0..BATCH, 0..BATCH, BATCH..2 * BATCH - 1] {
        client.export(logs("a", seqs)).await.unwrap();
    }
    let whole = spans("a", 2 * BATCH..3 * BATCH);
    server.traces().await.export(whole).await.unwrap();
    server.flush().await;
    let sent = Sent {
        acknowledged: vec![0, 1, 2, 3],
        ..Sent::default()
    };
    let count = Count {
        rows: 4 * BATCH - 1,
        lost: vec![3],
        twice: vec![0],
        in_part: vec![1],
    };
    assert_eq!(sent.count(&server.data_dir()), count);
}

/// Starts a server, waits until it has acknowledged something, and kills it.
async fn run_round(
    dir: TempDir,
    round: u64,
    load: &CrashLoad,
    random: &mut Random,
    tally: &mut Tally,
) -> TempDir {
    let settings = pick(&SETTINGS, round);
    let death = pick(&DEATHS, round);
    let server = start(dir, round, settings);
    let before = load.acknowledged();
    load.aim(&server);
    eventually("an acknowledgement", async || load.acknowledged() > before).await;
    let moment = random.ms(5..=1500);
    println!("round {round}: {settings:?}, {death:?} after {moment:?}");
    tokio::time::sleep(moment).await;
    let mut dir = match death {
        Death::Kill | Death::KillAndKillInStart => server.kill(),
        Death::KillInFlush => kill_in_flush(server, random.ms(0..=30)).await,
        Death::KillInStop => kill_in_stop(server, random.ms(0..=300), tally).await,
    };
    load.aim_nowhere();
    if matches!(death, Death::KillAndKillInStart) {
        let (was_ready, killed) = builder(dir, settings).kill_in_start(random.ms(0..=500));
        tally.killed_in_start += u64::from(!was_ready);
        dir = killed;
    }
    dir
}

fn pick<T: Copy>(from: &[T], round: u64) -> T {
    from[usize::try_from(round).unwrap() % from.len()]
}

fn builder(dir: TempDir, settings: &[&str]) -> ServerBuilder {
    ServerBuilder::again(dir).args(settings)
}

/// Starts the round's server, with a log of its own.
fn start(dir: TempDir, round: u64, settings: &[&str]) -> Server {
    keep_log(dir.path(), round);
    builder(dir, settings).start()
}

/// Puts the log of the rounds before aside.
fn keep_log(dir: &Path, round: u64) {
    if round > 0 {
        fs::rename(dir.join("log"), dir.join(format!("log-{}", round - 1))).unwrap();
    }
}

async fn kill_in_flush(server: Server, later: Duration) -> TempDir {
    let mut admin = server.admin().await;
    let flush = tokio::spawn(async move {
        let request = FlushRequest { timeout_ms: 20_000 };
        // Whether it came to an end before the server did is left to chance.
        let _ = admin.flush(request).await;
    });
    tokio::time::sleep(later).await;
    let dir = server.kill();
    flush.await.unwrap();
    dir
}

async fn kill_in_stop(mut server: Server, later: Duration, tally: &mut Tally) -> TempDir {
    server.signal(Signal::TERM);
    tokio::time::sleep(later).await;
    tally.stopped_first += u64::from(server.child.try_wait().unwrap().is_some());
    server.kill()
}
