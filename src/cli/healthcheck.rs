//! `otlake healthcheck`: one line and an exit code, for containers and scripts.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::args::HealthcheckArgs;
use super::client::{self, Client, Target};
use super::table;
use crate::proto::admin::StatusRequest;

/// Runs `otlake healthcheck`.
///
/// # Errors
/// One line, when the server does not answer in time, or is not fit to be sent to.
pub(super) async fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    let checked = tokio::time::timeout(args.timeout, check(&args, &target)).await;
    let line = checked.map_err(|_| {
        let timeout = table::duration(args.timeout);
        anyhow!("{} does not answer within {timeout}", target.url)
    })??;
    table::print(&line)?;
    Ok(ExitCode::SUCCESS)
}

async fn check(args: &HealthcheckArgs, target: &Target) -> anyhow::Result<String> {
    let url = &target.url;
    // Health needs no token. The time is kept by the caller, over all of this.
    let channel = client::channel(target, 2 * args.timeout).await?;
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(channel).check(request).await;
    let status = match answer {
        Ok(answer) => answer.into_inner().status(),
        Err(status) => return Err(client::explain(&status, url, false)),
    };
    match status {
        ServingStatus::Serving => Ok(format!("healthy: {url} takes telemetry")),
        _ if args.live => Ok(format!("live: {url} answers, and is degraded")),
        _ => bail!("{url} is degraded: {}", why(args, target).await),
    }
}

/// What the server says of itself, where it may be asked.
async fn why(args: &HealthcheckArgs, target: &Target) -> String {
    let asked = async {
        let token = args.client.token.as_ref();
        let mut client = Client::connect(target, token, 2 * args.timeout)
            .await
            .ok()?;
        let status = client.admin.status(StatusRequest {}).await.ok()?;
        let degraded = status.into_inner().degraded;
        // It may be well again by now.
        (!degraded.is_empty()).then_some(degraded)
    };
    let said = asked.await;
    said.unwrap_or_else(|| "`otlake status` says why".to_owned())
}
