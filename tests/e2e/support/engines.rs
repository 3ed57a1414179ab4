//! `DuckDB`, through the Python that `make test` sets up.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Reads `{sql, query}` from stdin; prints the query's rows as JSON, times and dates as text.
const SCRIPT: &str = r#"
import duckdb, json, sys
job = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
connection.execute(job["sql"])
print(json.dumps(connection.execute(job["query"]).fetchall(), default=str))
"#;

/// Runs statements as they are, then a query; its rows.
#[track_caller]
pub fn duckdb(sql: &str, query: &str) -> Vec<Value> {
    let Some(python) = std::env::var_os("AUDITLAKE_PYTHON") else {
        panic!("AUDITLAKE_PYTHON names no Python with duckdb and pyarrow: run `make test`, which installs and sets it");
    };
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let job = json!({ "sql": sql, "query": query }).to_string();
    child.stdin.take().unwrap().write_all(job.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{sql}\n{query}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
