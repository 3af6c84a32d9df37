"""Compares output files with DuckDB queries over the same records: an engine that none of us wrote.

A request is a line of JSON on standard input: {"tables": {name: [files]}, "checks": [{"name", "file", "sql", "times"}]}.
The answer is a line, too: {"rows": compared rows} or {"differs": what and where}. Rows are compared as multisets, floats
to 1e-9; the columns `times` are RFC 3339 in the file and microseconds since 1970 in the query.
"""
import datetime
import json
import sys

import duckdb

COLUMNS = "{id: 'BIGINT', c: 'BIGINT', k: 'VARCHAR', n: 'BIGINT', x: 'DOUBLE', s: 'VARCHAR', us: 'BIGINT'}"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
MICROSECOND = datetime.timedelta(microseconds=1)


def micros(text):
    return (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // MICROSECOND


def exact(row):
    """What decides which rows are compared with each other: floats may differ in their last digits."""
    return [(value is not None, str(type(value)), str(value)) for value in row if not isinstance(value, float)]


def same(a, b):
    if isinstance(a, float) and isinstance(b, (int, float)) or isinstance(b, float) and isinstance(a, int):
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1.0)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def check(database, name, file, sql, times):
    result = database.execute(sql)
    columns = [column[0] for column in result.description]
    expected = [list(row) for row in result.fetchall()]
    found = []
    for line in open(file) if file else ():
        row = json.loads(line)
        assert sorted(row) == sorted(columns), f"{name}: columns {list(row)}, expected {columns}"
        found.append([micros(row[c]) if c in times and row[c] else row[c] for c in columns])
    key = lambda row: (exact(row), [str(value) for value in row])
    found.sort(key=key)
    expected.sort(key=key)
    for one, other in zip(found, expected):
        if not all(map(same, one, other)):
            return None, f"{name}: found {one}, expected {other} for {columns}"
    if len(found) != len(expected):
        longer, what = (found, "too many") if len(found) > len(expected) else (expected, "missing")
        return None, f"{name}: {len(found)} rows, expected {len(expected)}; {what}: {longer[min(len(found), len(expected))]}"
    return len(found), None


def answer(request):
    database = duckdb.connect()
    for table, files in request["tables"].items():
        database.execute(
            f"create table {table} as select * from read_json({files}, format = 'newline_delimited', columns = {COLUMNS})"
        )
    rows = 0
    for one in request["checks"]:
        count, difference = check(database, one["name"], one["file"], one["sql"], one["times"])
        if difference:
            return {"differs": difference}
        rows += count
    return {"rows": rows}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
