//! `installer facts`: everything that is found on this host, for support. Reads only; no secrets are among it.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::facts::Facts;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Shows the facts: one JSON object in a line for programs, a line for each fact for people.
pub fn facts(host: &Host, output: &Output) -> Result<Exit> {
    let facts = Facts::gather(host)?;
    if output.is_json() {
        output.json(&facts);
        return Ok(Exit::Done);
    }
    let value = serde_json::to_value(&facts).context("writing the facts as JSON")?;
    for line in lines("", &value) {
        output.line(&line);
    }
    Ok(Exit::Done)
}

/// `os.id: debian`; lists of plain values are one line, others one line for each.
fn lines(name: &str, value: &Value) -> Vec<String> {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Object(map) => map.iter().flat_map(|(part, value)| lines(&below(part), value)).collect(),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let shown = list.iter().map(|entry| format!("{name}: {}", row(entry)));
            shown.collect()
        }
        other => vec![format!("{name}: {}", plain(other))],
    }
}

fn row(entry: &Value) -> String {
    let Value::Object(map) = entry else { return plain(entry) };
    map.iter().map(|(part, value)| format!("{part} {}", plain(value))).collect::<Vec<_>>().join(", ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_a_line() {
        let facts = serde_json::to_value(crate::facts::tests::debian()).unwrap();
        let shown = lines("", &facts);
        for line in [
            "architecture: amd64",
            "os.distribution: debian-12",
            "addresses: address 192.0.2.1, interface eth0, prefix 24",
            "swap: -",
            "security.selinux: off",
            "container: -",
        ] {
            assert!(shown.iter().any(|found| found == line), "`{line}` is not in {shown:#?}");
        }
    }
}
