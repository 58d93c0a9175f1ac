//! Quack: started, guarded, stopped.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use duckdb::Connection;
use duckdb::arrow::array::{Array, AsArray as _, BooleanArray, RecordBatch, StringArray};
use duckdb::arrow::datatypes::DataType;
use duckdb::vscalar::{ArrowFunctionSignature, VArrowScalar};
use subtle::ConstantTimeEq as _;

use super::control::Control;
use super::functions;
use super::policy::Policy;
use crate::config::{QuackConfig, Secret};
use crate::lake::{LakeConfig, LakeError, ServedLake};
use crate::seal::ledger::one_line;
use crate::telemetry::QueryRefusal;

/// How often something that others can bring about is logged.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// How long an answer that DuckDB has given to quack takes to be sent at most.
const SENDING: Duration = Duration::from_millis(500);

/// How often it is looked whether DuckDB has answered.
const ACTIVE_PAUSE: Duration = Duration::from_millis(10);

/// What asks for the door's answers, and by which names quack calls them.
const SETTINGS: &str = "SET GLOBAL quack_authentication_function = 'otlake_authenticate';
    SET GLOBAL quack_authorization_function = 'otlake_authorize'";

/// Why the lake cannot be queried by others.
#[derive(Debug, thiserror::Error)]
pub enum SurfaceError {
    /// The lake cannot be opened for them, or an extension is not there.
    #[error("cannot let other DuckDBs query the lake (--quack-listen): {0}")]
    Lake(#[from] LakeError),
    /// DuckDB does not do as it should.
    #[error("cannot let other DuckDBs query the lake (--quack-listen): {action}: {reason}")]
    DuckDb {
        /// What was tried.
        action: &'static str,
        /// What DuckDB said.
        reason: String,
    },
}

impl SurfaceError {
    fn duckdb(action: &'static str) -> impl FnOnce(duckdb::Error) -> SurfaceError {
        move |error| SurfaceError::DuckDb {
            action,
            reason: one_line(&error.to_string()),
        }
    }
}

/// The lake and the server, for DuckDBs that come over quack.
pub struct Surface {
    // Dropped in this order: the lake's DuckDB and its files go last.
    serving: Mutex<Connection>,
    parser: Mutex<Connection>,
    /// Asks quack for its sessions; apart from the parser, which no query may wait for.
    watch: Mutex<Connection>,
    token: Secret,
    policy: Policy,
    control: Arc<Control>,
    listen: SocketAddr,
    denied: Rarely,
    refused: Rarely,
    lake: ServedLake,
}

impl Surface {
    /// Opens the lake for queries and lets quack listen on `listen`, which nobody else has; `folder` is for its own files.
    /// Blocks.
    ///
    /// # Errors
    /// [`SurfaceError`]; nothing listens then.
    pub fn start(
        config: &QuackConfig,
        lake: &LakeConfig,
        folder: &Path,
        listen: SocketAddr,
        control: Arc<Control>,
    ) -> Result<Arc<Surface>, SurfaceError> {
        let lake = ServedLake::open(lake, &config.lake_name, folder)?;
        let serving = lake.connect()?;
        let policy = Policy::of(&serving)
            .map_err(SurfaceError::duckdb("cannot ask DuckDB for its functions"))?;
        let surface = Arc::new(Surface {
            parser: Mutex::new(lake.connect()?),
            watch: Mutex::new(lake.connect()?),
            serving: Mutex::new(serving),
            token: config.token.clone(),
            policy,
            control,
            listen,
            denied: Rarely::default(),
            refused: Rarely::default(),
            lake,
        });
        surface.serve()?;
        let asked = Arc::downgrade(&surface);
        let queries = &surface.control.overview.queries;
        queries.ask_for_sessions(move || asked.upgrade()?.open_sessions());
        tracing::debug!(%listen, lake = config.lake_name, "quack listens");
        Ok(surface)
    }

    fn serve(self: &Arc<Self>) -> Result<(), SurfaceError> {
        let serving = lock(&self.serving);
        // Not the surface itself: the functions are DuckDB's, and it would never be closed.
        let door = Door(Arc::downgrade(self));
        functions::register(&serving, &self.control)
            .and_then(|()| {
                serving.register_scalar_function_with_state::<Authenticate>(
                    "otlake_authenticate",
                    &door,
                )?;
                serving.register_scalar_function_with_state::<Authorize>("otlake_authorize", &door)
            })
            .and_then(|()| serving.execute_batch(SETTINGS))
            .map_err(SurfaceError::duckdb("cannot register otlake's functions"))?;
        self.lake.lock()?;
        // The token that quack makes for itself is never asked for: the door has its own.
        let sql = format!(
            "CALL quack_serve('{}', allow_other_hostname = true)",
            self.uri()
        );
        serving
            .execute_batch(&sql)
            .map_err(SurfaceError::duckdb("quack cannot listen"))
    }

    /// Lets nobody in any more, once what is asked now is answered, but for what is not answered until `until`. Blocks.
    pub fn stop(&self, until: Instant) {
        if let Err(error) = self.wait_for_answers(until) {
            tracing::debug!(
                error = one_line(&error.to_string()),
                "cannot ask quack who waits"
            );
        }
        let serving = lock(&self.serving);
        if let Err(error) = serving.execute_batch(&format!("CALL quack_stop('{}')", self.uri())) {
            tracing::warn!(error = one_line(&error.to_string()), "quack does not stop");
        }
    }

    /// Waits for the sessions that are being answered now, until each is over or has its answer, and then for the answers
    /// to be sent, of which quack tells nothing: it would close their connections in the middle.
    fn wait_for_answers(&self, until: Instant) -> duckdb::Result<()> {
        let watch = lock(&self.watch);
        let mut statement = watch.prepare(
            "SELECT connection_id FROM quack_active_connections() WHERE state <> 'finished'",
        )?;
        let mut active = || -> duckdb::Result<Vec<String>> {
            statement.query_map([], |row| row.get(0))?.collect()
        };
        // Whoever waits for the stop may have been answered since, and be gone.
        let mut left = active()?;
        let is_sending = !left.is_empty() || self.control.was_stopped_by_a_query();
        while !left.is_empty() && Instant::now() < until {
            std::thread::sleep(ACTIVE_PAUSE);
            let now = active()?;
            left.retain(|session| now.contains(session));
        }
        if is_sending {
            std::thread::sleep(SENDING.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Sessions that are open now; `None` when quack is being asked already, as it is for as long as the stop takes.
    fn open_sessions(&self) -> Option<u64> {
        let watch = match self.watch.try_lock() {
            Ok(watch) => watch,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let count = "SELECT count(*)::UBIGINT FROM quack_active_connections()";
        watch.query_row(count, [], |row| row.get(0)).ok()
    }

    fn uri(&self) -> String {
        format!("quack:{}", self.listen)
    }

    /// Whether whoever shows this may come in.
    fn authenticate(&self, shown: &str) -> bool {
        let is_right = self.token.expose().as_bytes().ct_eq(shown.as_bytes());
        if bool::from(is_right) {
            self.control.overview.queries.let_in();
            return true;
        }
        self.count(QueryRefusal::Unauthenticated);
        if let Some(since) = self.denied.speak() {
            tracing::warn!(
                not_logged_since_last = since,
                "refused over quack: a wrong token"
            );
        }
        false
    }

    /// Whether the statement may run; the lake is as new as it gets then.
    fn authorize(&self, statement: &str) -> bool {
        let reason = match self.may_run(statement) {
            Ok(()) => {
                self.control.overview.queries.run();
                return true;
            }
            Err((reason, why)) => {
                self.count(reason);
                why
            }
        };
        if let Some(since) = self.refused.speak() {
            tracing::warn!(
                not_logged_since_last = since,
                "refused over quack: {reason}"
            );
        }
        false
    }

    fn may_run(&self, statement: &str) -> Result<(), (QueryRefusal, String)> {
        if self.control.is_stopping() {
            return Err((QueryRefusal::Stopping, "the server is stopping".to_owned()));
        }
        self.policy
            .judge(&lock(&self.parser), statement)
            .map_err(|refused| (QueryRefusal::NotPermitted, refused.to_string()))?;
        self.lake.refresh().map_err(|error| {
            let error = one_line(&error.to_string());
            let why = format!("the lake's catalog cannot be read, and an older copy would not be true any more: {error}");
            (QueryRefusal::Catalog, why)
        })
    }

    fn count(&self, reason: QueryRefusal) {
        self.control.overview.queries.refuse(reason);
    }
}

fn lock(connection: &Mutex<Connection>) -> std::sync::MutexGuard<'_, Connection> {
    // A statement that panicked has ended, and the connection takes the next one.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is said every few seconds at most.
#[derive(Default)]
struct Rarely {
    last: Mutex<(Option<Instant>, u64)>,
}

impl Rarely {
    /// How often it was not said since the last time; `None` when it is too soon to say it again.
    fn speak(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, unsaid) = &mut *last;
        if at.is_some_and(|at| at.elapsed() < LOG_PAUSE) {
            *unsaid += 1;
            return None;
        }
        *at = Some(Instant::now());
        Some(std::mem::take(unsaid))
    }
}

/// The way from DuckDB's functions to the surface; one that leads nowhere lets nobody in.
#[derive(Clone, Default)]
struct Door(Weak<Surface>);

impl Door {
    /// Asks for each row, of which the texts in column `place` are judged; what is NULL may not.
    fn ask(
        &self,
        input: &RecordBatch,
        place: usize,
        judge: impl Fn(&Surface, &str) -> bool,
    ) -> Result<Arc<dyn Array>, Box<dyn Error>> {
        let surface = self.0.upgrade();
        let texts: &StringArray = input.column(place).as_string::<i32>();
        let may = texts.iter().map(|text| match (&surface, text) {
            (Some(surface), Some(text)) => judge(surface, text),
            _ => false,
        });
        Ok(Arc::new(BooleanArray::from_iter(may.map(Some))))
    }
}

/// `otlake_authenticate(session, shown, ...)`: called by quack for each client that connects.
struct Authenticate;

impl VArrowScalar for Authenticate {
    type State = Door;

    fn invoke(door: &Door, input: RecordBatch) -> Result<Arc<dyn Array>, Box<dyn Error>> {
        door.ask(&input, 1, Surface::authenticate)
    }

    fn signatures() -> Vec<ArrowFunctionSignature> {
        let parameters = vec![DataType::Utf8; 3];
        vec![ArrowFunctionSignature::exact(parameters, DataType::Boolean)]
    }

    fn volatile() -> bool {
        true
    }
}

/// `otlake_authorize(session, statement)`: called by quack before each statement.
struct Authorize;

impl VArrowScalar for Authorize {
    type State = Door;

    fn invoke(door: &Door, input: RecordBatch) -> Result<Arc<dyn Array>, Box<dyn Error>> {
        door.ask(&input, 1, Surface::authorize)
    }

    fn signatures() -> Vec<ArrowFunctionSignature> {
        let parameters = vec![DataType::Utf8; 2];
        vec![ArrowFunctionSignature::exact(parameters, DataType::Boolean)]
    }

    fn volatile() -> bool {
        true
    }
}
