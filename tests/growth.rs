//! Many small seals do not make many files.

use otlake::proto::admin::StatusRequest;

use crate::support::load::{logs, spans};
use crate::support::{Server, eventually};

/// Seals to make: each leaves one file in two tables.
const SEALS: i64 = 210;

/// Live files a table may have once maintenance has run.
const FILES_MAX: u64 = 20;

/// Scenario: 210 flushes, a few rows each, as an hour of little traffic makes them.
/// Guarantees: maintenance leaves at most 20 live files in each table, loses no row, and the figures of the status
/// are those of the catalog.
#[tokio::test]
async fn many_small_seals_leave_few_files() {
    let server = Server::start();
    let mut log_client = server.logs().await;
    let mut span_client = server.traces().await;
    for seq in 0..SEALS {
        log_client.export(logs("a", [seq])).await.unwrap();
        span_client.export(spans("a", [seq])).await.unwrap();
        assert_eq!(server.flush().await, 2);
    }
    let mut admin = server.admin().await;
    eventually("merging", async || {
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.maintenance_last_error, "");
        let files = status.tables.iter().map(|table| table.files);
        status.maintenance_runs > 0 && files.max().unwrap() <= FILES_MAX
    })
    .await;
    for table in ["otlp_logs", "otlp_traces"] {
        // A merge may be under way: the status is as of the last time that no work was left.
        eventually("the catalog's figures", async || {
            let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
            let told = status.tables.iter().find(|told| told.table == table);
            let told = told.unwrap().files;
            let live = format!("SELECT count(*) FROM ducklake_list_files('lake', '{table}')");
            (1..=FILES_MAX).contains(&told) && server.count(&live) == i64::try_from(told).unwrap()
        })
        .await;
        let rows = format!("SELECT count(*) FROM {table}");
        assert_eq!(server.count(&rows), SEALS);
    }
    assert_eq!(server.count("SELECT count(*) FROM otlake_seals"), SEALS);
}
