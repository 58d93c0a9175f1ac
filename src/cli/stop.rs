//! `otlake stop`: the server stops as on SIGTERM, and the command waits until it has.

use std::net::ToSocketAddrs as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::net::TcpStream;

use super::args::StopArgs;
use super::client::{ANSWER_TIMEOUT, Client, Found, Target};
use super::table;
use crate::proto::admin::StopRequest;
use crate::server_file::ServerFile;

/// How long to wait for the end: twice the default of `--shutdown-grace`.
const WAIT_MAX: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `otlake stop`.
///
/// # Errors
/// One line, when there is no server, or it has not stopped within a minute.
pub(super) async fn run(args: StopArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    // What listens on the usual port may be the server of another folder: that one is not to be stopped by guessing.
    if target.found == Found::Guessed {
        bail!(
            "no server runs in {}: name its folder with --data-dir, or its address with --endpoint",
            target.data_dir.display()
        );
    }
    let server = target.local_server();
    let mut client = Client::connect(&target, args.client.token.as_ref(), ANSWER_TIMEOUT).await?;
    if let Err(status) = client.admin.stop(StopRequest {}).await {
        return Err(client.explain(&status));
    }
    drop(client); // Else the server would wait for this connection to end.
    wait(&target, server.as_ref(), WAIT_MAX).await
}

/// Waits until the server is gone: one of this machine has given its lock back, another takes no connections any more.
async fn wait(
    target: &Target,
    server: Option<&ServerFile>,
    wait_max: Duration,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    loop {
        let is_gone = match server {
            Some(server) => ServerFile::running(&target.data_dir)
                .is_none_or(|now| now.started_unix_ms != server.started_unix_ms),
            None => !listens(&target.url).await,
        };
        let waited = table::duration(start.elapsed());
        match server {
            Some(server) if is_gone => {
                table::print(&format!("stopped (process {}), {waited}", server.pid))?;
                return Ok(ExitCode::SUCCESS);
            }
            None if is_gone => {
                table::print(&format!(
                    "{} takes no connections any more, {waited}",
                    target.url
                ))?;
                return Ok(ExitCode::SUCCESS);
            }
            _ if start.elapsed() >= wait_max => {
                bail!("the server was told to stop and is still at it after {waited}: see its log");
            }
            _ => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

async fn listens(url: &str) -> bool {
    let (_, address) = url.split_once("://").unwrap_or(("", url));
    let address = address.to_owned();
    let resolved = tokio::task::spawn_blocking(move || address.to_socket_addrs()).await;
    let Ok(Ok(addresses)) = resolved else {
        return false;
    };
    for address in addresses {
        let connected = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address));
        if matches!(connected.await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::ClientTlsArgs;
    use crate::config::LakeArgs;
    use crate::data_dir::DataDir;
    use crate::server_file::LakeFile;

    /// Scenario: the server holds the lock for longer than the command waits, then gives it back.
    /// Guarantees: the command says that the server is still there; afterwards it succeeds.
    #[tokio::test]
    async fn waits_for_the_lock_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let lake = LakeArgs::default().resolve(dir.path()).unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let file = ServerFile::new(address, address, LakeFile::new(&lake, dir.path()));
        file.write(dir.path()).unwrap();
        let lock = DataDir::open(dir.path()).unwrap();
        let target = Target {
            url: "http://127.0.0.1:1".to_owned(),
            tls: ClientTlsArgs::default(),
            found: Found::Running(Box::new(file.clone())),
            data_dir: dir.path().to_owned(),
        };
        let still = wait(&target, Some(&file), Duration::ZERO).await;
        assert!(still.unwrap_err().to_string().contains("still at it"));
        drop(lock);
        assert!(wait(&target, Some(&file), WAIT_MAX).await.is_ok());
    }
}
