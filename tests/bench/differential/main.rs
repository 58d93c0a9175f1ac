//! Our decoding of protobuf against otlp2records', on random telemetry and on that of `otlake send`: an other hand has read
//! the same specification, and says the same of the same bytes.
//!
//! Where the two mean to differ, the difference is taken out:
//!
//! | what | how |
//! |---|---|
//! | wrong ids, times beyond 2262, spans without ids or that end before they start | not sent: one refuses the record, the other the request |
//! | values deeper than 16, byte values, values that are not there, NaN and infinities, keys that repeat | not sent: they are read or written differently |
//! | `event.name` among the attributes, a service without a name, no time | ours have more, see docs/TABLES.md |
//! | numbers, events and links in JSON | by value; what is empty or zero is left out of ours |

mod agreed;
#[path = "../../support/arbitrary.rs"]
#[allow(dead_code, reason = "metrics are not compared")]
mod arbitrary;
mod cleaned;
#[allow(dead_code, reason = "what the generator of random telemetry needs")]
mod otlp;

use agreed::{ours, theirs};
use otlake::signal::Signal;
use otlake_bench::workload::Workload;
use proptest::prelude::*;

/// Cases of each signal.
const CASES: u32 = 400;

fn assert_same(signal: Signal, body: &[u8]) {
    let (ours, theirs) = (ours(signal, body), theirs(signal, body));
    assert_eq!(ours.len(), theirs.len(), "rows");
    for (place, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "row {place}");
    }
}

proptest! {
    #![proptest_config(arbitrary::seeded(CASES))]

    /// Scenario: random log records.
    /// Guarantees: every column that both have holds the same value in every row.
    #[test]
    fn random_logs_agree(export in arbitrary::logs()) {
        let export = cleaned::cleaned(export);
        assert_same(Signal::Logs, &export.to_protobuf());
    }

    /// Scenario: random spans, with events and links.
    /// Guarantees: every column that both have holds the same value in every row.
    #[test]
    fn random_spans_agree(export in arbitrary::traces()) {
        let export = cleaned::cleaned(export);
        assert_same(Signal::Traces, &export.to_protobuf());
    }
}

/// Scenario: what the benchmarks decode.
/// Guarantees: it is the same work that is compared: every column that both have holds the same value in every row.
#[test]
fn generated_telemetry_agrees() {
    for signal in [Signal::Logs, Signal::Traces] {
        let workload = Workload::generated(signal, 6, 1000);
        assert_eq!(workload.rows, 6000);
        for body in workload.bodies {
            assert_same(signal, &body.protobuf);
        }
    }
}
