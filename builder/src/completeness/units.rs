//! Programs that units start by absolute path must be there on every promised distribution.
//!
//! The first word of each command in `Exec…=` lines (systemd.service(5)), after systemd's own prefixes. A path below
//! `component_dir(…)` is a program of that component; other words that templates compute are not known before the host.

use bundle::component::TemplateKind;

use super::Piece;
use super::problem::Problem;
use super::target::Target;
use super::templates::calls;

pub(super) fn problems(pieces: &[Piece], targets: &[Target]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for component in pieces.iter().map(|piece| &piece.component) {
        for template in component.templates.iter().filter(|template| template.kind == TemplateKind::Unit) {
            let who = format!("unit `{}` of `{}`", template.name, component.name);
            for command in commands(&template.text) {
                if command.starts_with('/') {
                    problems.extend(absent(&who, &command, targets));
                } else if let Some((call, path)) = command.split_once("}}/") {
                    problems.extend(not_promised(&who, call, path, pieces));
                } else if !command.starts_with("{{") {
                    let remedy = "write its absolute path: not every systemd looks for programs";
                    problems.push(Problem::written(&who, format!("a program called `{command}`"), remedy));
                }
            }
        }
    }
    problems
}

fn absent(who: &str, path: &str, targets: &[Target]) -> Vec<Problem> {
    let without = targets.iter().filter(|target| !target.has_program(path));
    let problem = |target: &Target| {
        let (name, table) = (target.name(), target.packages_table());
        let remedy = format!(
            "add the package that brings it to {table}, or, if every host has it, add it to `programs` in `bases/{name}.toml`"
        );
        Problem::written(who, format!("`{path}`, which {name} does not have"), remedy)
    };
    without.map(problem).collect()
}

fn not_promised(who: &str, call: &str, path: &str, pieces: &[Piece]) -> Option<Problem> {
    let name = calls(call, "component_dir").next()?.first().copied()?;
    let component = &pieces.iter().find(|piece| piece.component.name.as_str() == name)?.component;
    let promised = component.programs.iter().any(|program| program.as_str() == path);
    let missing = || format!("`{path}`, which component `{name}` does not promise");
    let remedy = "add it to `programs` in its component.toml and to `files` in the manifest";
    (!promised).then(|| Problem::written(who, missing(), remedy))
}

/// First words of all commands.
fn commands(text: &str) -> Vec<String> {
    let lines = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in lines.lines() {
        let Some((key, commands)) = line.trim_start().split_once('=') else { continue };
        let key = key.trim_end();
        let after = ["Condition", "Start", "StartPre", "StartPost", "Reload", "ReloadPost", "Stop", "StopPost"];
        if !key.strip_prefix("Exec").is_some_and(|rest| after.contains(&rest)) {
            continue;
        }
        for command in format!(" {commands} ").split(" ; ") {
            let command = command.trim_start().trim_start_matches(['-', '@', '+', '!', ':', '|']);
            let word = match command.split_once("}}") {
                Some((call, rest)) if command.starts_with("{{") => {
                    let rest = rest.split_whitespace().next().filter(|_| rest.starts_with('/')).unwrap_or("");
                    format!("{call}}}}}{rest}")
                }
                _ => command.split_whitespace().next().unwrap_or("").to_owned(),
            };
            if !word.is_empty() {
                found.push(word.trim_matches(['"', '\'']).to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    const UNIT: &str = r#"
[Service]
ExecStartPre=-/bin/mkdir -p /run/x
ExecStartPre=+!/usr/bin/missing-one
ExecStart={{ program("a", "bin/a") }} --x=/usr/bin/no-program \
  --y=/usr/bin/no-program
ExecReload = @/usr/sbin/missing-two argv0 ; :/usr/bin/missing-three
ExecStop={{ component_dir("a") }}/bin/stop now
ExecStopPost=\
  /usr/bin/missing-four
# ExecStart=/usr/bin/no-program
Environment=ExecStart=/usr/bin/no-program
ExecCondition=relative
"#;

    #[test]
    fn programs_of_units_must_be_on_every_distribution() {
        let found = problems(&[fake::unit("user", UNIT), fake::program("a", &["bin/a"])], &[fake::target()]);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        for name in ["missing-one", "missing-two", "missing-three", "missing-four"] {
            let part = format!("/{name}`, which debian-12 does not have: add the package that brings it");
            assert!(texts.iter().any(|text| text.contains(&part)), "{name} in {texts:#?}");
        }
        assert!(
            texts.iter().any(|text| text.contains("`bin/stop`, which component `a` does not promise")),
            "{texts:#?}"
        );
        assert!(texts.iter().any(|text| text.contains("a program called `relative`: write its absolute path")));
        assert!(texts[0].starts_with("unit `x.service` of `user` needs"), "{texts:#?}");
        assert_eq!(texts.len(), 6, "{texts:#?}");
    }

    #[test]
    fn programs_that_are_there_are_no_problem() {
        let unit = fake::unit("user", "ExecStartPre=-/bin/mkdir -p /x\nExecStop={{ component_dir('a') }}/bin/stop\n");
        let a = fake::program("a", &["bin/stop"]);
        assert_eq!(problems(&[unit.clone(), a.clone()], &[fake::target()]), []);
        let mut config = unit;
        config.component.templates[0].kind = TemplateKind::Config;
        config.component.templates[0].text = "ExecStart=/no/unit".into();
        assert_eq!(problems(&[config, a], &[fake::target()]), []);
    }
}
