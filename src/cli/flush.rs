//! `otlake flush`: everything received so far becomes queryable.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::FlushArgs;
use super::client::{Client, Target};
use super::table;
use crate::config::Secret;
use crate::proto::admin::{FlushRequest, FlushResponse};

/// The server ends the wait; this much later the client gives up on the server.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Runs `otlake flush`.
///
/// # Errors
/// One line, when there is no server or the rows were not in the lake in time.
pub(super) async fn run(args: FlushArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    let start = Instant::now();
    let response = flush(&target, args.client.token.as_ref(), args.timeout).await?;
    table::print(&describe(&response, start.elapsed()))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the server to flush and waits until it has.
pub(super) async fn flush(
    target: &Target,
    token: Option<&Secret>,
    timeout: Duration,
) -> anyhow::Result<FlushResponse> {
    let mut client = Client::connect(target, token, timeout + ANSWER_MARGIN).await?;
    let request = FlushRequest {
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
    };
    match client.admin.flush(request).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(client.explain(&status)),
    }
}

fn describe(response: &FlushResponse, took: Duration) -> String {
    let took = table::duration(took);
    match (response.rows, response.seal_id) {
        (0, 0) => "nothing to flush: nothing was received yet".to_owned(),
        (0, seal) => format!("nothing to flush: everything is in the lake (seal {seal}), {took}"),
        (number, seal) => format!("{} flushed (seal {seal}), {took}", table::rows(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a flush with rows, with none, and before the first seal.
    /// Guarantees: each says in a line what is so.
    #[test]
    fn the_answer_is_one_line() {
        let describe = |rows, seal_id| {
            super::describe(&FlushResponse { rows, seal_id }, Duration::from_millis(35))
        };
        assert_eq!(describe(1234, 17), "1,234 rows flushed (seal 17), 35ms");
        assert_eq!(
            describe(0, 17),
            "nothing to flush: everything is in the lake (seal 17), 35ms"
        );
        assert_eq!(describe(0, 0), "nothing to flush: nothing was received yet");
    }
}
