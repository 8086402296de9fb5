//! Whatever architecture is built now: a component has its programs on every architecture that the manifest promises.

use std::path::Path;

use bundle::{Architecture, LayerPath};

use super::problem::Problem;
use crate::manifest::{ComponentText, ReleaseText, Target};
use crate::recipe::Recipe;

pub(super) fn problems(release: &ReleaseText, recipes: &Path) -> anyhow::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for (name, text) in &release.components {
        let recipe = Recipe::read(recipes, name)?;
        problems.extend(of_component(name.as_str(), text, &recipe, &release.architectures));
    }
    Ok(problems)
}

fn of_component(name: &str, text: &ComponentText, recipe: &Recipe, promised: &[Architecture]) -> Vec<Problem> {
    let who = format!("`{name}`");
    let mut problems = Vec::new();
    for architecture in promised {
        let remedy = format!(
            "add an artifact whose `architectures` has {architecture}, or take {architecture} out of the manifest's `architectures`"
        );
        let artifacts: Vec<_> = text.artifacts.iter().filter(|artifact| artifact.is_for(*architecture)).collect();
        if artifacts.is_empty() {
            if text.packages.is_empty() {
                problems.push(Problem::written(&who, format!("an artifact for {architecture}"), remedy));
            }
            continue;
        }
        let brings = |program: &LayerPath| {
            let maps = artifacts.iter().flat_map(|artifact| &artifact.files);
            maps.into_iter().any(|map| match &map.to {
                Target::File(path) => path == program,
                // Which files a pattern will match is not known before the artifact is opened.
                Target::Directory(directory) => {
                    directory.as_ref().map_or("", LayerPath::as_str)
                        == program.as_str().rsplit_once('/').map_or("", |(parent, _)| parent)
                }
            })
        };
        let linked = |program: &LayerPath| recipe.text.links.contains_key(program);
        let packaged =
            |program: &LayerPath| text.packages.values().any(|packages| packages.programs.contains_key(program));
        for program in
            recipe.text.programs.iter().filter(|&program| !brings(program) && !linked(program) && !packaged(program))
        {
            problems.push(Problem::written(&who, format!("`{program}` for {architecture}"), remedy.clone()));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use bundle::component::Kind;

    use super::*;

    #[test]
    fn every_architecture_gets_every_program() {
        let name = "etcd".parse().unwrap();
        let mut recipe = Recipe::made(&name, Kind::Program, "MIT");
        recipe.text.programs = vec!["bin/etcd".parse().unwrap(), "bin/etcdctl".parse().unwrap()];
        let of = |manifest: &str| {
            let text: ComponentText = toml::from_str(manifest).unwrap();
            let both = [Architecture::Amd64, Architecture::Arm64];
            of_component("etcd", &text, &recipe, &both).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let found = of(r#"
version = "3"
[[artifact]]
url = "https://x/etcd-{arch}"
files = [{ from = "etcd", to = "bin/etcd" }]
[[artifact]]
url = "https://x/etcdctl-amd64"
architectures = ["amd64"]
files = [{ from = "etcdctl", to = "bin/etcdctl" }]
"#);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("`etcd` needs `bin/etcdctl` for arm64: add an artifact"), "{found:#?}");
        let found = of(
            "version = \"3\"\n[[artifact]]\nurl = \"https://x/e\"\narchitectures = [\"amd64\"]\nfiles = [{ from = \"*\", to = \"bin/\", many = true }]\n",
        );
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("`etcd` needs an artifact for arm64"), "{found:#?}");
        let found = of(
            "version = \"3\"\n[[artifact]]\nurl = \"https://x/e\"\nfiles = [{ from = \"*\", to = \"bin/\", many = true }]\n",
        );
        assert_eq!(found, Vec::<String>::new());
    }
}
