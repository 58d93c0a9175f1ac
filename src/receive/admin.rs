//! The admin service: what `otlake flush`, `status`, `seals`, `tail`, `doctor` and `stop` speak (proto/admin.proto).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tonic::{Request, Response, Status};

use super::overview::{FlushError, Flushed, Overview, QuackIdentity};
use super::tail;
use crate::proto::admin::admin_server::Admin;
use crate::proto::admin::{
    ClientSeen, FlushRequest, FlushResponse, Listener, Quack, QuackRefusal, Refusal, Seal,
    SealsRequest, SealsResponse, SignalStatus, StatusRequest, StatusResponse, StopRequest,
    StopResponse, TableFiles, TailRequest, TokenRefusal, TokenStatus,
};
use crate::seal::ledger::{RECENT_SEALS_MAX, SealRecord, Snapshot};
use crate::signal::{Protocol, Signal, Table};
use crate::telemetry::{Reason, RefusalSeen, Refused, TokenUse};

const FLUSH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const SEALS_DEFAULT: usize = 20;

/// The admin service.
pub struct AdminService {
    /// The running server.
    pub overview: Arc<Overview>,
    /// Told when somebody asks for the stop.
    pub stop: Arc<Notify>,
    /// Turns true when the server stops, and tails end.
    pub stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn flush(
        &self,
        request: Request<FlushRequest>,
    ) -> Result<Response<FlushResponse>, Status> {
        let timeout = match request.into_inner().timeout_ms {
            0 => FLUSH_TIMEOUT_DEFAULT,
            ms => Duration::from_millis(ms.into()),
        };
        match self.overview.flush(timeout).await {
            Ok(Flushed { rows, seal }) => Ok(Response::new(FlushResponse {
                rows,
                seal_id: seal.0,
            })),
            Err(error @ FlushError::Stopping) => Err(Status::unavailable(error.to_string())),
            Err(error @ FlushError::Late { .. }) => {
                Err(Status::deadline_exceeded(error.to_string()))
            }
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.overview.status()))
    }

    async fn seals(
        &self,
        request: Request<SealsRequest>,
    ) -> Result<Response<SealsResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => SEALS_DEFAULT,
            limit => usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .min(RECENT_SEALS_MAX),
        };
        let seals = self
            .overview
            .ledger
            .recent(limit)
            .iter()
            .map(seal)
            .collect();
        Ok(Response::new(SealsResponse { seals }))
    }

    type TailStream = tail::Messages;

    async fn tail(
        &self,
        request: Request<TailRequest>,
    ) -> Result<Response<tail::Messages>, Status> {
        let TailRequest { services, signals } = request.into_inner();
        let filter = tail::Filter::new(services, &signals)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let messages = tail::stream(&self.overview.tails, filter, self.stopping.clone())
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(messages))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let token = request.extensions().get::<Arc<TokenUse>>();
        tracing::info!(token = token.map(|token| token.name()), "asked to stop");
        self.stop.notify_one();
        Ok(Response::new(StopResponse {}))
    }
}

impl Overview {
    fn status(&self) -> StatusResponse {
        let seals = self.ledger.snapshot();
        let (_, oldest) = self.queue.buffered();
        let journal = (self.journal_status)();
        let identity = &self.identity;
        StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            writer_id: identity.writer.to_string(),
            started_unix_ms: identity.started_unix_ms,
            degraded: self.readiness.trouble().unwrap_or_default(),
            listeners: identity
                .listeners
                .iter()
                .map(|(protocol, address)| Listener {
                    protocol: protocol.name().to_owned(),
                    address: address.clone(),
                })
                .collect(),
            token_required: identity.token_required,
            transport_security: identity.transport_security.to_owned(),
            catalog: identity.catalog.clone(),
            data_path: identity.data_path.clone(),
            signals: self.signals(),
            tokens: self.tokens(),
            refusals: self.refusals(),
            buffered_bytes: self.budget.reserved(),
            buffered_bytes_max: self.budget.limit(),
            oldest_buffered_age_ms: u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX),
            staged_seals: seals.staged_seals,
            committed_seals: seals.committed_seals,
            last_commit_unix_ms: seals.last_commit_unix_ms,
            last_error: seals.last_error.message.clone(),
            last_error_unix_ms: seals.last_error.unix_ms,
            tables: self.tables(&seals),
            maintenance_runs: seals.maintenance_runs,
            maintenance_last_error: seals.maintenance_error.message.clone(),
            maintenance_last_error_unix_ms: seals.maintenance_error.unix_ms,
            connections: u32::try_from(self.connections.load(Ordering::Relaxed))
                .unwrap_or(u32::MAX),
            durability: journal.durability.name().to_owned(),
            journal_bytes: journal.journal_bytes,
            journal_segments: journal.journal_segments,
            disk_bytes_max: journal.disk_bytes_max,
            journal_requests: journal.requests,
            journal_syncs: journal.syncs.count(),
            remembered_requests: journal.remembered,
            disk_free_bytes: journal.disk_free_bytes.unwrap_or_default(),
            clients: self.clients(),
            otap_streams: u32::try_from(self.otap_streams.load(Ordering::Relaxed))
                .unwrap_or(u32::MAX),
            quack: self.quack(),
        }
    }

    fn quack(&self) -> Option<Quack> {
        let QuackIdentity { address, lake_name } = self.identity.quack.clone()?;
        let refused = self.queries.refused().into_iter();
        let refusals = refused.filter(|(_, count)| *count > 0);
        Some(Quack {
            address,
            lake_name,
            sessions: self.queries.open_sessions(),
            sessions_total: self.queries.sessions_total(),
            queries: self.queries.run_total(),
            refusals: refusals
                .map(|(reason, count)| QuackRefusal {
                    reason: reason.name().to_owned(),
                    count,
                })
                .collect(),
        })
    }

    fn clients(&self) -> Vec<ClientSeen> {
        let seen = self.counters.clients().into_iter();
        seen.map(|client| ClientSeen {
            service: client.service,
            user_agent: client.user_agent,
            signal: client.signal.name().to_owned(),
            protocol: client.protocol.name().to_owned(),
            last_unix_ms: client.last_unix_ms,
            requests: client.requests,
            rows: client.rows,
        })
        .collect()
    }

    fn tokens(&self) -> Vec<TokenStatus> {
        let tokens = self.counters.tokens();
        let refusal = |(reason, refused): (Reason, Refused)| TokenRefusal {
            reason: reason.name().to_owned(),
            requests: refused.requests,
            rows: refused.rows,
        };
        let status = |token: &Arc<TokenUse>| {
            let counted = token.counted();
            TokenStatus {
                name: token.name().to_owned(),
                requests: counted.requests,
                accepted_rows: counted.rows,
                accepted_bytes: counted.bytes,
                refused_requests: counted.refused_requests,
                refusals: token.refused().into_iter().map(refusal).collect(),
            }
        };
        tokens.iter().map(status).collect()
    }

    fn signals(&self) -> Vec<SignalStatus> {
        let mut signals = Vec::new();
        for signal in Signal::ALL {
            for protocol in Protocol::ALL {
                let accepted = self.counters.accepted(signal, protocol);
                signals.push(SignalStatus {
                    signal: signal.name().to_owned(),
                    protocol: protocol.name().to_owned(),
                    requests: accepted.requests,
                    accepted_rows: accepted.rows,
                    accepted_bytes: accepted.bytes,
                    refused_requests: accepted.refused_requests,
                    refused_rows: accepted.refused_rows,
                    repeated_requests: accepted.repeated,
                });
            }
        }
        signals
    }

    fn refusals(&self) -> Vec<Refusal> {
        let refused = self.counters.refused_last().into_iter();
        refused
            .map(
                |RefusalSeen {
                     key: (signal, protocol, reason),
                     count,
                     own_requests,
                     last,
                 }| Refusal {
                    own_requests,
                    signal: signal.map_or("-", Signal::name).to_owned(),
                    protocol: protocol.name().to_owned(),
                    reason: reason.name().to_owned(),
                    requests: count.requests,
                    rows: count.rows,
                    last_unix_ms: last.unix_ms,
                    last_peer: last
                        .client
                        .peer
                        .map(|peer| peer.to_string())
                        .unwrap_or_default(),
                    last_token: last
                        .client
                        .token
                        .map(|token| token.name().to_owned())
                        .unwrap_or_default(),
                    last_user_agent: last.client.user_agent,
                    last_message: last.message,
                },
            )
            .collect()
    }

    fn tables(&self, seals: &Snapshot) -> Vec<TableFiles> {
        let (buffered, _) = self.queue.buffered();
        let rows = Table::ALL
            .into_iter()
            .zip(buffered)
            .zip(seals.staging)
            .zip(seals.staged)
            .zip(seals.committed)
            .zip(seals.files);
        rows.map(
            |(((((table, buffered), staging), staged), committed), files)| TableFiles {
                table: table.name().to_owned(),
                // Until the whole seal is on disk its rows are in memory.
                buffered_rows: buffered.rows + staging.rows,
                buffered_bytes: buffered.bytes + staging.bytes,
                staged_rows: staged.rows,
                staged_bytes: staged.bytes,
                committed_rows: committed.rows,
                committed_bytes: committed.bytes,
                files: files.files,
                file_bytes: files.bytes,
            },
        )
        .collect()
    }
}

fn seal(record: &SealRecord) -> Seal {
    let ended = match record.committed_unix_ms {
        0 => 0.0,
        #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
        committed => (committed - record.opened_unix_ms) as f64,
    };
    Seal {
        seal_id: record.id.0,
        state: record.state.name().to_owned(),
        cause: record.cause.name().to_owned(),
        rows: record.rows.iter().sum(),
        bytes: record.bytes.iter().sum(),
        sealed_unix_ms: record.sealed_unix_ms,
        committed_unix_ms: record.committed_unix_ms,
        stage_ms: record.stage_ms,
        publish_ms: record.publish_ms,
        total_ms: ended,
        error: record.error.clone(),
        attempts: record.attempts,
    }
}
