//! `otlake send --protocol otap`: one connection's generated telemetry, several batches in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::client::{OtapClient, Outcome};
use super::generate::Request;
use super::report::Tally;
use super::{Shared, UNREACHED_MAX, Writer};

/// A batch that has its answer: its request, its bytes, what became of it and how long that took.
type Answered = (Request, usize, (Outcome, Duration));

/// As [`super::send_all`], over streams.
pub(super) async fn send_all(
    shared: &Arc<Shared>,
    mut client: OtapClient,
    mut stopped: watch::Receiver<Option<String>>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new();
    let mut writer = Writer::default();
    let mut answers: JoinSet<Answered> = JoinSet::new();
    while stopped.borrow().is_none() {
        while let Some(answered) = answers.try_join_next() {
            count(
                &mut tally,
                shared,
                answered.context("a batch's task failed")?,
            );
        }
        if client.failures() >= UNREACHED_MAX {
            let why = format!("the server failed {UNREACHED_MAX} times in a row to answer a batch");
            shared.stop.send_replace(Some(why));
            break;
        }
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = shared.plan.request(index) else {
            break;
        };
        if let Some(pace) = shared.pace {
            tokio::select! {
                () = sleep_until(pace.due(request.sent_before)) => {}
                _ = stopped.changed() => break,
            }
        }
        let time = shared.clock.time(&request)?;
        let body = writer.write(&shared.catalog, &request, shared.encoding, time)?;
        let sent = client.submit(request.signal, &body).await?;
        answers.spawn(async move { (request, sent.bytes, sent.outcome().await) });
    }
    // Before the answers: a server may keep the last ones until it knows that nothing follows.
    client.close_send();
    while let Some(answered) = answers.join_next().await {
        count(
            &mut tally,
            shared,
            answered.context("a batch's task failed")?,
        );
    }
    for end in client.close().await? {
        tally.note_end(end);
    }
    Ok(tally)
}

fn count(tally: &mut Tally, shared: &Shared, (request, bytes, (outcome, took)): Answered) {
    tally.count(request.signal, request.records, bytes, took, outcome);
    shared.progress.inc(request.records);
}
