//! Other DuckDBs, which query the running server over quack.

use std::net::SocketAddr;
use std::path::Path;

use duckdb::{Config, Connection};
use otlake::server_file::ServerFile;

use crate::support::{Server, ServerBuilder, query_all};

pub const TOKEN: &str = "quack-token-0123456789";

/// A server that lets queries in.
pub fn serve(args: &[&str]) -> Server {
    builder().args(args).start()
}

pub fn builder() -> ServerBuilder {
    ServerBuilder::new()
        .args(&["--quack-listen", "127.0.0.1:0"])
        .env("OTLAKE_QUACK_TOKEN", TOKEN)
}

/// Another DuckDB, with the extensions that its users have: in this process, which is not the server's.
pub struct Client {
    pub duckdb: Connection,
    pub quack: SocketAddr,
}

impl Client {
    pub fn of(server: &Server) -> Client {
        let file = ServerFile::read(&server.data_dir()).unwrap();
        let settings = Config::default()
            .with("autoinstall_known_extensions", "false")
            .unwrap();
        let duckdb = Connection::open_in_memory_with_flags(settings).unwrap();
        let ask = |sql: &str| query_all(&duckdb, sql).remove(0).remove(0);
        let extensions = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("vendor/extensions")
            .join(ask("SELECT library_version FROM pragma_version()"))
            .join(ask("SELECT platform FROM pragma_platform()"));
        for name in ["httpfs", "quack"] {
            let file = extensions.join(format!("{name}.duckdb_extension"));
            duckdb
                .execute_batch(&format!("LOAD '{}'", file.display()))
                .unwrap();
        }
        Client {
            duckdb,
            quack: file.quack.unwrap(),
        }
    }

    /// Asks in a session of its own, with the token; each cell as text.
    pub fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        query_all(&self.duckdb, &self.remote(sql, TOKEN))
    }

    pub fn count(&self, sql: &str) -> i64 {
        self.ask(sql).remove(0).remove(0).parse().unwrap()
    }

    /// What DuckDB says instead of an answer.
    pub fn refusal(&self, sql: &str, token: &str) -> String {
        let remote = self.remote(sql, token);
        let asked = self.duckdb.execute_batch(&remote);
        asked.unwrap_err().to_string()
    }

    pub fn remote(&self, sql: &str, token: &str) -> String {
        let quack = self.quack;
        format!("FROM quack_query('quack:{quack}', $ask${sql}$ask$, token = '{token}')")
    }
}
