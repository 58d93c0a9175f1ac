//! What follows the options in each command's help.

pub(super) const OTLAKE: &str = "\
EXAMPLES
  otlake serve                          receive on 127.0.0.1:4317 and :4318
  otlake send --signal all              try it with generated telemetry
  otlake query \"FROM otlp_logs\"          look at what arrived
  otlake status                         see how the server is

`otlake COMMAND --help` says all about a command.

EXIT CODES
  0 done   1 failed   2 wrong usage or settings";

pub(super) const SERVE: &str = "\
Flags go before environment variables, these before the file of --config, that
before defaults. An unknown OTLAKE_* variable or key of the file is an error.
With DUCKDB_MODE=local-ducklake the variables of duckdb-otlp's daemon are taken
too, below all of these.
Sizes are written 16MiB, 64KB or in bytes; durations 500ms, 5s, 15m or 1h.

EXAMPLES
  otlake serve
  otlake serve --data-dir /var/lib/otlake --seal-max-age 2s
  export OTLAKE_TOKEN=$(openssl rand -hex 16)
  otlake serve --grpc-listen 0.0.0.0:4317 --http-listen 0.0.0.0:4318
  otlake serve --cors-origin https://app.example.com
  otlake serve --tls-cert server.pem --tls-key server.key --token-file tokens
  otlake serve --config otlake.toml --check
  OTLAKE_QUACK_TOKEN=$(openssl rand -hex 16) otlake serve --quack-listen

  otlake.toml:
    grpc-listen = \"[::1]:4317\"
    seal-max-age = \"2s\"
    cors-origin = [\"https://app.example.com\"]

EXIT CODES
  0 stopped, and everything acknowledged is in the lake or safely on disk
  1 failed   2 wrong usage or settings";

pub(super) const QUERY: &str = "\
The tables are otlp_logs, otlp_traces, otlp_metrics_gauge, otlp_metrics_sum,
otlp_metrics_histogram, otlp_metrics_exp_histogram and otlp_metrics_summary;
otlake_seals has a row for each commit. Several statements, separated by `;`, run in
order: as tables and ndjson the rows of each are printed one after the other; csv
and json hold those of one, and more are refused before anything has run.

EXAMPLES
  otlake query \"SELECT * FROM otlp_logs LIMIT 10\"
  otlake query \"SELECT * FROM otlp_traces\" --format json
  otlake query --format csv < report.sql > report.csv
  otlake query --no-flush --data-dir /var/lib/otlake \"FROM otlake_seals\"

EXIT CODES
  0 done   1 failed, such as by an error in the SQL   2 wrong usage";

pub(super) const FLUSH: &str = "\
EXAMPLES
  otlake flush
  otlake flush --timeout 2m --endpoint http://collector:4317
  otlake flush --endpoint https://collector:4317 --ca ca.pem

EXIT CODES
  0 everything received before the call is in the lake
  1 failed, or not in time   2 wrong usage";

pub(super) const STATUS: &str = "\
EXAMPLES
  otlake status
  otlake status --json --data-dir /var/lib/otlake

EXIT CODES
  0 done   1 failed, such as when no server runs   2 wrong usage";

pub(super) const HEALTHCHECK: &str = "\
EXAMPLES
  otlake healthcheck
  otlake healthcheck --live --timeout 2s --endpoint http://127.0.0.1:4317

EXIT CODES
  0 healthy   1 degraded, or no answer in time   2 wrong usage";

pub(super) const SEALS: &str = "\
EXAMPLES
  otlake seals
  otlake seals --limit 100 --json

EXIT CODES
  0 done   1 failed, such as when neither server nor lake is there   2 wrong usage";

pub(super) const TAIL: &str = "\
A line has the record's time, signal, service, and its name or body. What arrives
faster than it can be shown is left out, and the number of records told.

EXAMPLES
  otlake tail
  otlake tail --service checkout --signal logs
  otlake tail --json | jq .attributes

EXIT CODES
  0 ended by Ctrl-C, or nobody reads on
  1 failed, or the server has ended   2 wrong usage";

pub(super) const DOCTOR: &str = "\
It asks the server how it is, who was seen last and what was refused, then looks at
the OTEL_* variables and at the settings of Codex, Claude Code and Gemini CLI, where
they are, and sends an empty request as each of them would. Nothing is stored by it.

EXAMPLES
  otlake doctor
  otlake doctor --endpoint https://collector:4317 --ca ca.pem

EXIT CODES
  0 all is well   1 something is to be changed   2 wrong usage";

pub(super) const JOURNAL: &str = "\
EXAMPLES
  otlake journal inspect
  otlake journal repair --skip-damaged

EXIT CODES
  0 done   1 damaged, or failed   2 wrong usage";

pub(super) const JOURNAL_INSPECT: &str = "\
EXAMPLES
  otlake journal inspect
  otlake journal inspect --json --data-dir /var/lib/otlake

EXIT CODES
  0 nothing is damaged   1 damaged, or it cannot be read   2 wrong usage";

pub(super) const JOURNAL_REPAIR: &str = "\
The server must be stopped. Damaged files are kept in DIR/journal/damaged.

EXAMPLES
  otlake journal repair                   show what would be given up
  otlake journal repair --skip-damaged    give it up

EXIT CODES
  0 repaired, or nothing was damaged
  1 damaged and not repaired, or failed   2 wrong usage";

pub(super) const STOP: &str = "\
The call returns once the server has ended.

EXAMPLES
  otlake stop
  otlake stop --data-dir /var/lib/otlake

EXIT CODES
  0 the server has ended   1 failed, such as when no server runs   2 wrong usage";

pub(super) const SEND: &str = "\
Generated records are numbered, so that SQL can count loss and duplicates.

EXAMPLES
  otlake send
  otlake send --signal all --count 100000 --batch 1000 --connections 4
  otlake send --protocol http-json --compression gzip --rate 500
  otlake send --protocol otap --count 1000000 --batch 1000
  otlake send --signal traces --endpoint http://collector:4317
  otlake send --endpoint https://collector:4317 --ca ca.pem
  otlake send captured/logs.pb traces.ndjson

EXIT CODES
  0 everything was accepted
  1 something was refused or could not be sent   2 wrong usage";

pub(super) const GENERATE: &str = "\
EXAMPLES
  otlake generate completions bash > ~/.local/share/bash-completion/completions/otlake
  otlake generate man ~/.local/share/man/man1

EXIT CODES
  0 done   1 failed   2 wrong usage";
