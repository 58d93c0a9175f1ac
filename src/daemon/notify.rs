//! What the service manager is told, where there is one: systemd's `sd_notify(3)`, over the socket of `NOTIFY_SOCKET`.
//!
//! | when | what |
//! |---|---|
//! | both listeners answer | `READY=1` and a status line |
//! | SIGHUP, before and after the files are looked at | `RELOADING=1` with `MONOTONIC_USEC`, `READY=1` |
//! | the stop begins | `STOPPING=1` |
//! | twice in each `WATCHDOG_USEC` | `WATCHDOG=1`, from the runtime that answers requests |

use std::time::Duration;

use sd_notify::NotifyState;

use super::Addresses;

/// Whether a service manager has started this process and waits to be told.
pub(super) fn is_supervised() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// Both listeners answer.
pub(super) fn ready(addresses: Addresses) {
    let Addresses { grpc, http, .. } = addresses;
    let status = format!("OTLP/gRPC on {grpc}, OTLP/HTTP on {http}");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// SIGHUP is being followed; [`reloaded`] comes next.
pub(super) fn reloading() {
    // Without its time systemd would take the message for a broken one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock cannot be read"),
    }
}

/// SIGHUP was followed, whatever came of it.
pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The stop has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Keeps the watchdog quiet for as long as the runtime goes round, if there is one. Ends with the runtime.
pub(super) fn start_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // An interval of nothing would panic; so short a limit nobody keeps.
    let pause = (limit / 2).max(Duration::from_millis(1));
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(pause);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if !is_supervised() {
        return;
    }
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
