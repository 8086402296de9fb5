//! OS packages that the manifest names must be in that distribution's closure, or in its base.

use super::problem::Problem;
use super::target::Target;
use crate::manifest::ReleaseText;

pub(super) fn problems(release: &ReleaseText, targets: &[Target]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for target in targets {
        let on = target.name();
        let mut wanted: Vec<(String, &String)> = Vec::new();
        for (distribution, text) in &release.packages {
            if distribution.as_str() == on {
                wanted.extend(text.install.iter().map(|name| (target.packages_table(), name)));
            }
        }
        for (component, text) in &release.components {
            let here = text.packages.iter().filter(|(distribution, _)| distribution.as_str() == on);
            wanted
                .extend(here.flat_map(|(_, packages)| &packages.install).map(|name| (format!("`{component}`"), name)));
        }
        for (who, name) in wanted {
            let name = name.split('=').next().unwrap_or(name);
            if !target.has_package(name) {
                let missing = format!("the package `{name}` on {on}: it is neither in the closure nor in the base");
                problems.push(Problem::content(
                    who,
                    missing,
                    "run `builder lock`, and see what it says of the package",
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    const MANIFEST: &str = r#"
name = "demo"
version = "1-1"
sequence = 1
created = "2026-11-21"
architectures = ["amd64"]
distributions = ["debian-12"]
[packages.debian-12]
suites = ["bookworm"]
install = ["adduser", "socat=1.7.4.4-2"]
[component.nginx]
version = "1"
[component.nginx.packages.debian-12]
install = ["nginx"]
programs = { "bin/nginx" = "/usr/sbin/nginx" }
"#;

    #[test]
    fn packages_that_are_named_are_there() {
        let release: ReleaseText = toml::from_str(MANIFEST).unwrap();
        let mut target = fake::target();
        let found = problems(&release, std::slice::from_ref(&target));
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:#?}");
        assert!(texts[0].starts_with("`[packages.debian-12]` needs the package `socat` on debian-12"), "{texts:#?}");
        assert!(texts[1].starts_with("`nginx` needs the package `nginx` on debian-12"), "{texts:#?}");
        target.packages.extend(["socat", "nginx"].map(str::to_owned));
        assert_eq!(problems(&release, &[target]), []);
    }
}
