//! A journal that cannot be synced any more takes nothing, says so everywhere, and loses nothing.

use otlake::signal::Signal;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::crash_load::{CrashLoad, Temper};
use crate::support::failing_sync::FailingSync;
use crate::support::load::logs;
use crate::support::outage::skip;
use crate::support::{Server, ServerBuilder, eventually};

/// What a client is told; the log has more.
const TOLD: &str = "the server cannot write its journal; its log says why";

/// What each way of asking says of it.
async fn assert_told(server: &Server) {
    let body = prost::Message::encode_to_vec(&logs("told", 0..1));
    let protobuf = [("content-type", "application/x-protobuf")];
    let answer = server.post("/v1/logs", &protobuf, body).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert!(answer.text().contains(TOLD), "{}", answer.text());
    let refusal = server.logs().await.export(logs("told", 1..2)).await;
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    assert_eq!(refusal.message(), TOLD);

    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(server.get("/healthz").await.status, 200);
    eventually("NOT_SERVING", async || {
        server.health().await == [ServingStatus::NotServing; 2]
    })
    .await;
    let status = server.status().await;
    let why = "the journal cannot be written: ";
    assert!(status.degraded.contains(why), "{}", status.degraded);
    assert!(ready.text().contains(&status.degraded), "{}", ready.text());
    let counted = status.refusals.iter().filter(|refusal| {
        refusal.reason == "journal_failed" && refusal.signal == Signal::Logs.name()
    });
    let protocols: Vec<_> = counted.map(|refusal| &*refusal.protocol).collect();
    for protocol in ["grpc", "http"] {
        assert!(protocols.contains(&protocol), "{protocols:?}");
    }
    let why = "the journal cannot be written: no more requests are taken until the next start";
    assert!(server.log().contains(why), "{}", server.log());
}

/// Scenario: under load the journal's syncs begin to fail; the server is stopped, or killed, and started on a disk that is
/// well.
/// Guarantees: each request is told to come back; probes, health and status say why; the next start takes requests, and
/// everything that was acknowledged before and after is in the lake, nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_synced_refuses_until_the_next_start() {
    for is_killed in [false, true] {
        let syncs = match FailingSync::new() {
            Ok(syncs) => syncs,
            Err(why) => {
                let test = "a_journal_that_cannot_be_synced_refuses_until_the_next_start";
                return skip(test, &why);
            }
        };
        let args = ["--seal-max-age", "300ms"];
        let server = syncs.give_to(ServerBuilder::new().args(&args)).start();
        let load = CrashLoad::start(&[Temper::GivesUp, Temper::Retries]);
        load.aim(&server);
        eventually("load", async || load.acknowledged() >= 200).await;
        syncs.fail();
        eventually("refusals", async || load.refused() >= 100).await;
        let acknowledged = load.acknowledged();
        assert_told(&server).await;
        assert_eq!(load.acknowledged(), acknowledged);

        load.aim_nowhere();
        let dir = if is_killed {
            server.kill()
        } else {
            let (status, dir) = server.stop();
            assert!(status.success(), "{status}");
            dir
        };
        let server = ServerBuilder::again(dir).args(&args).start();
        load.aim(&server);
        eventually("load again", async || {
            load.acknowledged() >= acknowledged + 100
        })
        .await;
        assert_eq!(server.get("/readyz").await.status, 200);
        let sent = load.finish().await;
        sent.assert_refusals_are_retryable();
        server.flush().await;
        sent.assert_exactly_once(&server.data_dir());
    }
}
