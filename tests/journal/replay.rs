//! Batches read back: in today's columns, in memory that can be counted, whatever their bytes say.

use std::fs;

use otlake::journal::{ScanError, replay};
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::number_data_point::Value;
use otlake::proto::metrics::v1::{Gauge, Metric, NumberDataPoint};
use otlake::rows::batch_bytes;
use otlake::signal::Table;
use prost::Message as _;

use super::alone::{Alone, Settings, found, segment};
use super::corpus::{rows_of, send};
use super::damage::{MAGIC_BYTES, batches, disk, journal, mended, places, with};
use crate::corpora::corpus;
use crate::support::journal_input::{frame, recover, salted, start};
use crate::support::otlp::{Export, resource};

/// Scenario: a table had another column when a segment was written, which is gone by now, in the place of one of today.
/// Guarantees: its batches are read in today's columns, null where there was none.
#[test]
fn older_columns_are_read_as_todays() {
    let content = journal(3, 1 << 20).content(&segment(1));
    let places = places(&content);
    let mut older = start(1);
    let logs = older
        .schemas
        .iter_mut()
        .find(|schema| schema.table == Table::Logs.name());
    let mut columns = logs.unwrap().columns.iter_mut();
    let body = columns.find(|column| column.name == "body").unwrap();
    body.name = "a_column_of_old".to_owned();
    let mut changed = content[..MAGIC_BYTES].to_vec();
    changed.extend(salted(frame(1, 0, &older.encode_to_vec()), &content));
    changed.extend(&content[places[1]..]);
    let disk = with(&[(1, &changed)]);
    let scan = mended(&disk);
    assert_eq!(found(&disk, &scan), batches(1..=3));
    otlake::journal::replay(&disk, &scan, 1..=3, |stored| {
        let (_, batch) = &stored.batches[0];
        let column = batch.column_by_name("body").unwrap();
        assert_eq!(column.null_count(), column.len());
        Ok::<(), ScanError>(())
    })
    .unwrap();
}

/// Scenario: a request of many rows is read back.
/// Guarantees: its batch holds about the memory that it held when it was received, and says so: the open buffer reserves
/// what is said.
#[test]
fn a_batch_that_is_read_back_holds_what_it_held() {
    let disk = disk();
    let alone = Alone::start(&disk, &Settings::default(), 0).unwrap();
    let data_points = (1..900).map(|number| NumberDataPoint {
        start_time_unix_nano: 1000 * number,
        time_unix_nano: 2000 * number,
        flags: number as u32,
        value: Some(Value::AsDouble(number as f64)),
        ..NumberDataPoint::default()
    });
    let gauge = Data::Gauge(Gauge {
        data_points: data_points.collect(),
    });
    let metric = Metric {
        data: Some(gauge),
        ..Metric::default()
    };
    let export = Export::metrics(resource(Vec::new()), Default::default(), vec![metric]);
    send(&alone, &export, 1);
    let rows = rows_of(&export);
    let before: u64 = rows
        .batches
        .iter()
        .map(|(_, batch)| batch_bytes(batch))
        .sum();
    let scan = mended(&disk);
    let mut after = 0;
    replay(&disk, &scan, 1..=1, |stored| {
        after += stored
            .batches
            .iter()
            .map(|(_, batch)| batch_bytes(batch))
            .sum::<u64>();
        Ok::<(), ScanError>(())
    })
    .unwrap();
    assert!(after <= before * 11 / 10, "{after} bytes, {before} before");
    alone.journal.finish();
}

/// Scenario: in the fuzzer's first journals of logs and spans each byte is changed in turn, and the checksums made right.
/// Guarantees: no panic; arrow-ipc has none to catch either.
#[test]
fn no_changed_byte_of_a_batch_makes_a_start_panic() {
    for name in ["logs", "traces"] {
        let input = fs::read(corpus("journal_recovery").join(name)).unwrap();
        for at in (3..input.len()).step_by(3) {
            let mut changed = input.clone();
            changed[at] = changed[at].wrapping_add(if at % 2 == 0 { 1 } else { 0x80 });
            recover(&changed);
        }
    }
}
