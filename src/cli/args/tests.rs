use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

fn refused(line: &str) -> ErrorKind {
    parse(line).unwrap_err().kind()
}

/// Scenario: clap checks its own definition.
/// Guarantees: no name is given twice, no reference leads nowhere.
#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// Scenario: `--help` of every command.
/// Guarantees: a description of its own, examples, exit codes, and a help text for each argument.
#[test]
fn every_help_is_complete() {
    let mut cli = Cli::command();
    cli.build();
    let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(
        names,
        [
            "serve",
            "query",
            "flush",
            "status",
            "healthcheck",
            "seals",
            "tail",
            "doctor",
            "journal",
            "stop",
            "send",
            "generate",
            "help",
        ]
    );
    let mut waiting: Vec<&mut clap::Command> = cli.get_subcommands_mut().collect();
    while let Some(command) = waiting.pop() {
        if command.get_name() == "help" {
            continue;
        }
        let name = command.get_name().to_owned();
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{name} {}",
                argument.get_id()
            );
        }
        let help = command.render_long_help().to_string();
        assert!(
            help.contains("EXAMPLES\n  ") && help.contains("EXIT CODES\n  0 "),
            "{help}"
        );
        assert!(
            !help.starts_with("Where") && !help.starts_with("The settings"),
            "{help}"
        );
        waiting.extend(command.get_subcommands_mut());
    }
}

/// Scenario: the help of `serve`.
/// Guarantees: each setting names its variable.
#[test]
fn serve_help_names_the_variables() {
    let mut cli = Cli::command();
    let help = cli
        .find_subcommand_mut("serve")
        .unwrap()
        .render_long_help()
        .to_string();
    // Lines are broken anywhere between words.
    let help: Vec<&str> = help.split_whitespace().collect();
    let help = help.join(" ");
    for variable in [
        "OTLAKE_GRPC_LISTEN",
        "OTLAKE_TOKEN",
        "OTLAKE_CONFIG",
        "OTLAKE_NO_AUTH",
    ] {
        assert!(help.contains(&format!("[env: {variable}]")), "{help}");
    }
    assert!(!help.contains("OTLAKE_CHECK"));
}

/// Scenario: each command without arguments.
/// Guarantees: the documented defaults.
#[test]
fn defaults_are_as_documented() {
    let Ok(Command::Query(query)) = parse("otlake query -") else {
        panic!("query")
    };
    assert_eq!(
        (query.sql.as_deref(), query.format, query.no_flush),
        (Some("-"), OutputFormat::Table, false)
    );
    let Ok(Command::Flush(flush)) = parse("otlake flush") else {
        panic!("flush")
    };
    assert_eq!(flush.timeout, Duration::from_secs(30));
    let Ok(Command::Seals(seals)) = parse("otlake seals --json") else {
        panic!("seals")
    };
    assert_eq!((seals.limit, seals.json), (20, true));
    let Ok(Command::Send(send)) = parse("otlake send") else {
        panic!("send")
    };
    assert_eq!(
        (send.count, send.batch, send.rate, send.connections),
        (1000, 100, None, 1)
    );
    assert_eq!(
        (send.signal, send.protocol, send.compression),
        (None, SendProtocol::Grpc, SendCompression::None)
    );
    assert_eq!((send.timeout, send.quiet), (Duration::from_secs(10), false));
    assert_eq!((send.in_flight, send.arrow_compression), (None, None));
    let Ok(Command::Serve(serve)) = parse("otlake serve --no-auth --check") else {
        panic!("serve")
    };
    assert_eq!(
        (serve.settings.no_auth, serve.check, serve.config),
        (Some(true), true, None)
    );
}

/// Scenario: values that make no sense, and files beside generated records.
/// Guarantees: usage errors, which leave with exit code 2.
#[test]
fn nonsense_is_a_usage_error() {
    assert_eq!(refused("otlake send --count 0"), ErrorKind::ValueValidation);
    assert_eq!(refused("otlake send --rate 0"), ErrorKind::ValueValidation);
    assert_eq!(
        refused("otlake send --protocol smoke"),
        ErrorKind::InvalidValue
    );
    assert_eq!(
        refused("otlake send --protocol otap --in-flight 0"),
        ErrorKind::ValueValidation
    );
    assert_eq!(
        refused("otlake send --protocol otap --arrow-compression lz4"),
        ErrorKind::InvalidValue
    );
    let Ok(Command::Send(send)) = parse(
        "otlake send --protocol otap --in-flight 64 --arrow-compression none --compression zstd",
    ) else {
        panic!("send")
    };
    assert_eq!(
        (send.protocol, send.in_flight, send.arrow_compression),
        (SendProtocol::Otap, Some(64), Some(ArrowCompression::None))
    );
    assert_eq!(
        refused("otlake send --count 5 logs.pb"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        refused("otlake send --protocol otap --in-flight 5 logs.pb"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        refused("otlake send --timeout 2h"),
        ErrorKind::ValueValidation
    );
    assert_eq!(
        refused("otlake seals --limit 1001"),
        ErrorKind::ValueValidation
    );
    assert_eq!(
        refused("otlake flush --timeout 5"),
        ErrorKind::ValueValidation
    );
    assert_eq!(refused("otlake pour"), ErrorKind::InvalidSubcommand);
    assert_eq!(parse("otlake pour").unwrap_err().exit_code(), 2);
    assert_eq!(refused("otlake --version"), ErrorKind::DisplayVersion);
    let Ok(Command::Send(send)) = parse("otlake send --signal traces a.pb b.json") else {
        panic!("send")
    };
    assert_eq!(
        (send.files.len(), send.signal),
        (2, Some(SendSignal::Traces))
    );
}
