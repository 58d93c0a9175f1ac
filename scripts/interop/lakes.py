"""Whether two lakes hold the same rows: SQL EXCEPT ALL both ways, so that duplicates count and the order of rows does not.

What is in a list whose order OTLP gives no meaning to, events, links and exemplars, is compared in sorted order: a Go
exporter sorts these by name, trace id and value.
"""

ATTRIBUTES = ("resource_attributes", "scope_attributes", "log_attributes", "span_attributes", "metric_attributes")
LISTS = ("events_json", "links_json", "exemplars_json")
TABLES = (
    "otlp_logs", "otlp_traces", "otlp_metrics_gauge", "otlp_metrics_sum", "otlp_metrics_histogram",
    "otlp_metrics_exp_histogram", "otlp_metrics_summary",
)

# Codex sends this attribute twice in some spans, as an int and as a string, and the exporter sorts attributes by type and key:
# which of the two comes last, and is kept, is another one then.
REPEATED = """CASE WHEN service_name LIKE 'codex%' THEN json_merge_patch(span_attributes::JSON, '{"thread.id": null}')::VARCHAR
    ELSE span_attributes END"""


def as_it_is(column, _table):
    """Columns as they are, lists sorted."""
    return f"list_sort(({column}::JSON)::VARCHAR[])" if column in LISTS else None


def as_exported(column, table):
    """What came through the otelarrow exporter, for a comparison with `as_it_would_be_exported`."""
    return REPEATED if column == "span_attributes" else as_it_is(column, table)


def as_it_would_be_exported(column, table):
    """What came over OTLP, with what the otelarrow exporter changes done to it.

    It cannot tell these from what is not there: an attribute without a value, a histogram's sum, min or max of 0. Metadata it
    does not send.
    """
    if column in ATTRIBUTES:
        source = f"({REPEATED})" if column == "span_attributes" else column
        return f"nullif(json_merge_patch('{{}}', {source}::JSON)::VARCHAR, '{{}}')"
    if column in LISTS:
        return f"list_sort(list_transform(({column}::JSON)::JSON[], lambda one: json_merge_patch('{{}}', one)::VARCHAR))"
    if column in ("sum", "min", "max") and "histogram" in table:
        return f"nullif({column}, 0)"
    if column == "metadata":
        return "NULL::VARCHAR"
    return None


def select(source, table, columns, change):
    """All rows of a table, with the columns that `change` says something of replaced."""
    replaced = [f"{sql} AS {column}" for column in columns if (sql := change(column, table))]
    return f"SELECT * {'REPLACE (' + ', '.join(replaced) + ')' if replaced else ''} FROM {source}"


def columns_of(server, table):
    return [row["column_name"] for row in server.query(f"DESCRIBE {table}")]


def counts(server):
    sql = " UNION ALL ".join(f"SELECT '{table}' AS name, count(*) AS rows FROM {table}" for table in TABLES)
    return {row["name"]: row["rows"] for row in server.query(sql)}


def differences(server, other, table, is_exported):
    """How many rows `server` has that `other` has not, and the other way round; how many of the former `other` has, but fewer
    times; and the first such rows. `is_exported` says that `server`'s came through the otelarrow exporter."""
    columns = columns_of(server, table)
    mine = select(table, table, columns, as_exported if is_exported else as_it_is)
    theirs = select(f"other.main.{table}", table, columns, as_it_would_be_exported if is_exported else as_it_is)
    both = (
        f"ATTACH 'ducklake:sqlite:{other.data}/catalog.sqlite' AS other (READ_ONLY); "
        f"WITH mine AS ({mine}), theirs AS ({theirs}), extra AS (FROM mine EXCEPT ALL FROM theirs), "
        "missing AS (FROM theirs EXCEPT ALL FROM mine), foreign_rows AS (FROM mine EXCEPT FROM theirs) "
    )
    names = ("extra", "missing", "foreign_rows")
    [found] = server.query(both + "SELECT " + ", ".join(f"(SELECT count(*) FROM {name}) AS {name}" for name in names))
    rows = []
    for side in ("extra", "missing"):
        if found[side]:
            rows += [(side, row) for row in server.query(both + f"FROM {side} ORDER BY ALL LIMIT 3")]
    return found["extra"], found["missing"], found["extra"] - found["foreign_rows"], rows
