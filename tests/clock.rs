//! The wall clock is only for people to read: setting it changes nothing else.

use tempfile::TempDir;

use crate::support::crash_load::{CrashLoad, Temper};
use crate::support::fake_clock::FakeClock;
use crate::support::outage::skip;
use crate::support::{Server, ServerBuilder, eventually};

/// How far the clock is set back, seconds: more than snapshots are kept and retries are remembered.
const BACK_S: i64 = 2 * 3600;

/// Rows are received and published, without being asked for.
async fn assert_alive(server: &Server, load: &CrashLoad) {
    let (seals, requests) = (server.status().await.committed_seals, load.acknowledged());
    eventually("seals", async || {
        let status = server.status().await;
        status.committed_seals >= seals + 5 && load.acknowledged() >= requests + 100
    })
    .await;
    assert_eq!(server.get("/readyz").await.status, 200);
}

/// Scenario: under load the clock is set back by two hours; then the server is killed and started again; then the clock
/// is put right.
/// Guarantees: rows are acknowledged and published all the while, and everything is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_delays_and_repeats_nothing() {
    let clock = match FakeClock::new() {
        Ok(clock) => clock,
        Err(why) => return skip("a_clock_set_back_delays_and_repeats_nothing", &why),
    };
    let start = |dir: TempDir| {
        let server = ServerBuilder::again(dir).args(&["--seal-max-age", "100ms"]);
        clock.give_to(server).start()
    };
    let server = start(TempDir::new().unwrap());
    let load = CrashLoad::start(&[Temper::GivesUp, Temper::Retries]);
    load.aim(&server);
    assert_alive(&server, &load).await;
    clock.set(-BACK_S);
    assert_alive(&server, &load).await;
    let dir = server.kill();
    load.aim_nowhere();
    let server = start(dir);
    load.aim(&server);
    assert_alive(&server, &load).await;
    clock.set(0);
    assert_alive(&server, &load).await;

    let sent = load.finish().await;
    sent.assert_refusals_are_retryable();
    server.flush().await;
    sent.assert_exactly_once(&server.data_dir());
    let jumps = "SELECT count(*) FILTER (WHERE jump < -3600), count(*) FILTER (WHERE jump > 3600) FROM (
        SELECT date_diff('second', lag(committed_at) OVER (ORDER BY seal_id), committed_at) AS jump FROM otlake_seals)";
    assert_eq!(server.sql(jumps), [["1", "1"]]);
}
