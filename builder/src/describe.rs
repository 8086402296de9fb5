//! A bundle described: for people as aligned text of at most 100 columns (but for URLs and `--files`), for programs as JSON.
//!
//! The JSON is an interface: fields are added, never renamed or removed, while `format` stays 1 (docs/inside.md lists them).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bundle::component::{Entry, Upstream};
use bundle::{Digest, Image, Release};
use serde_json::{Value, json};

use crate::output::{bytes, total};

/// What vouches when nothing does but the download itself.
const FIRST_USE: &str = "first-use";

/// `first-use`, and `first-use:REPOSITORY/ARCH` of packages.
fn is_first_use(proof: &str) -> bool {
    proof.split(':').next() == Some(FIRST_USE)
}

/// Who signed.
#[derive(Clone, Debug)]
pub struct State {
    /// Key ids that signatures claim.
    pub claimed: Vec<String>,
    /// Key ids of checked signatures, if they were checked.
    pub signers: Option<Vec<String>>,
}

/// What is shown of a bundle.
#[derive(Debug)]
pub struct Description<'a> {
    release: &'a Release,
    images: &'a [Image],
    index: Digest,
    state: State,
    size: u64,
}

fn compressed(image: &Image) -> u64 {
    total(image.layers.iter().map(|layer| layer.size))
}

fn upstream(image: &Image) -> u64 {
    total(image.component.upstream.iter().map(|upstream| upstream.size))
}

fn roles(image: &Image) -> String {
    let roles = &image.component.roles;
    match roles.len() {
        0 => "-".to_owned(),
        3 => "all".to_owned(),
        _ => roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect::<Vec<_>>().join(","),
    }
}

/// How many artifacts each kind of proof vouched for; what comes after the colon differs from one to the next.
fn proofs(image: &Image) -> BTreeMap<&str, usize> {
    let mut proofs = BTreeMap::new();
    for upstream in &image.component.upstream {
        *proofs.entry(upstream.proof.split(':').next().unwrap_or_default()).or_default() += 1;
    }
    proofs
}

fn proofs_text(image: &Image) -> String {
    let proof = |(name, count): (&str, usize)| {
        let name = if is_first_use(name) { "FIRST USE" } else { name };
        if count > 1 { format!("{count} {name}") } else { name.to_owned() }
    };
    match proofs(image) {
        none if none.is_empty() => "-".to_owned(),
        some => some.into_iter().map(proof).collect::<Vec<_>>().join(", "),
    }
}

impl<'a> Description<'a> {
    /// Of a bundle file of `size` bytes.
    pub fn of(release: &'a Release, images: &'a [Image], index: Digest, state: State, size: u64) -> Self {
        Self { release, images, index, state, size }
    }

    fn sum(&self, of: impl Fn(&Image) -> u64) -> u64 {
        total(self.images.iter().map(of))
    }

    fn artifacts(&self) -> BTreeMap<(&str, &Digest), &Upstream> {
        let all = self.images.iter().flat_map(|image| &image.component.upstream);
        all.map(|upstream| ((upstream.url.as_str(), &upstream.sha256), upstream)).collect()
    }

    /// Artifacts for which nothing vouched but the download itself, with the components that use them.
    fn first_use(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for image in self.images {
            for upstream in image.component.upstream.iter().filter(|upstream| is_first_use(&upstream.proof)) {
                found.entry(upstream.url.as_str()).or_default().push(image.component.name.as_str());
            }
        }
        found
    }

    /// For people.
    pub fn text(&self, with_files: bool) -> String {
        let mut text = self.head();
        let mut rows = vec![["COMPONENT", "VERSION", "KIND", "ROLES", "LICENCE"].map(str::to_owned)];
        for image in self.images {
            let component = &image.component;
            let kind = match &component.distribution {
                Some(distribution) => format!("{} {distribution}", component.kind.as_str()),
                None => component.kind.as_str().to_owned(),
            };
            let (name, version) = (component.name.to_string(), component.version.to_string());
            rows.push([name, version, kind, roles(image), component.licence.clone()]);
        }
        text += &columns(&rows, [30, 19, 18, 13, 12], &[]);
        text += "\n";
        let mut rows = vec![["COMPONENT", "IN BUNDLE", "INSTALLED", "UPSTREAM", "VOUCHED FOR BY"].map(str::to_owned)];
        for image in self.images {
            let sizes = [compressed(image), image.installed_size(), upstream(image)].map(bytes);
            let [packed, installed, upstream] = sizes;
            rows.push([image.component.name.to_string(), packed, installed, upstream, proofs_text(image)]);
        }
        text += &columns(&rows, [30, 11, 11, 11, 29], &[1, 2, 3]);
        self.upstream(&mut text);
        self.packages(&mut text);
        if with_files {
            self.files(&mut text);
        }
        text.trim_end().to_owned()
    }

    fn head(&self) -> String {
        let Release { name, version, architecture, sequence, created, lock, installer } = self.release;
        let claimed = match &self.state.claimed[..] {
            [] => "nobody".to_owned(),
            some => some.join(", "),
        };
        let state = match &self.state.signers {
            Some(signers) => format!("head verified by {}; `builder verify` checks every byte", signers.join(", ")),
            None => "UNVERIFIED: give `--key FILE` to check the signatures".to_owned(),
        };
        let mut text = format!(
            "{name} {version} for {architecture}, sequence {sequence}, created {created}\nindex     {index}\nlock      {lock}\ninstaller {installer}\nsigned by {claimed}\n          {state}\n",
            index = self.index
        );
        let artifacts = self.artifacts();
        let of_artifacts = total(artifacts.values().map(|upstream| upstream.size));
        let _ = writeln!(
            text,
            "holds     {} components, {} packed, {} installed, of {} artifacts, {}",
            self.images.len(),
            bytes(self.sum(compressed)),
            bytes(self.sum(Image::installed_size)),
            artifacts.len(),
            bytes(of_artifacts),
        );
        let first_use = self.first_use();
        if !first_use.is_empty() {
            let plural = if first_use.len() == 1 { "artifact" } else { "artifacts" };
            let _ = writeln!(
                text,
                "\n!! {} {plural} on first use: nothing but the download itself vouched for",
                first_use.len()
            );
            for (url, users) in first_use {
                let _ = writeln!(text, "!!   {url} ({})", users.join(", "));
            }
        }
        text + "\n"
    }

    fn upstream(&self, text: &mut String) {
        *text += "\nUPSTREAM\n";
        for Image { component, reference, .. } in self.images {
            if component.upstream.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{}", component.name);
            if let Some(reference) = reference {
                let _ = writeln!(text, "  as {reference}");
            }
            for Upstream { url, size, sha256, proof, licence, .. } in &component.upstream {
                let proof = if is_first_use(proof) { "FIRST USE" } else { proof };
                let licence = licence.as_ref().map(|licence| format!(", {licence}")).unwrap_or_default();
                let _ = writeln!(text, "  {url}\n    {}, {proof}{licence}\n    {sha256}", bytes(*size));
            }
        }
    }

    fn packages(&self, text: &mut String) {
        for Image { component, .. } in self.images {
            if !component.packages.is_empty() {
                let _ = writeln!(text, "\nPACKAGES of {}", component.name);
                let row = |package: &bundle::component::Package| {
                    [package.name.clone(), package.version.clone(), bytes(package.size)]
                };
                let rows: Vec<_> = component.packages.iter().map(row).collect();
                *text += &columns(&rows, [48, 36, 12], &[2]);
            }
            if !component.images.is_empty() {
                let _ = writeln!(text, "\nIMAGES needed by {}\n{}", component.name, component.images.join("\n"));
            }
        }
    }

    fn files(&self, text: &mut String) {
        *text += "\nFILES\n";
        for image in self.images {
            for file in &image.files {
                let what = match &file.entry {
                    Entry::Directory => "directory".to_owned(),
                    Entry::Regular { mode, size, sha256 } => format!("{mode:04o} {size} {sha256}"),
                    Entry::Symlink { target } => format!("-> {target}"),
                };
                let _ = writeln!(text, "{}/{} {what}", image.component.name, file.path);
            }
        }
    }

    /// For programs.
    pub fn json(&self, with_files: bool) -> Value {
        let Release { name, version, architecture, sequence, created, lock, installer } = self.release;
        let artifacts = self.artifacts();
        let of_artifacts = total(artifacts.values().map(|upstream| upstream.size));
        let first_use = self.first_use().into_iter().map(|(url, users)| json!({ "url": url, "components": users }));
        json!({
            "format": 1,
            "name": name, "version": version, "architecture": architecture, "sequence": sequence, "created": created,
            "lock": lock, "installer": installer, "index": self.index, "bytes": self.size,
            "claimed_signers": self.state.claimed, "signers": self.state.signers.clone().unwrap_or_default(),
            "verified": self.state.signers.is_some(),
            "totals": {
                "components": self.images.len(), "bytes": self.sum(compressed),
                "installed": self.sum(Image::installed_size), "artifacts": artifacts.len(), "upstream": of_artifacts,
            },
            "first_use": first_use.collect::<Vec<_>>(),
            "components": self.images.iter().map(|image| component(image, with_files)).collect::<Vec<_>>(),
        })
    }
}

fn component(image: &Image, with_files: bool) -> Value {
    let component = &image.component;
    let templates: Vec<_> = component.templates.iter().map(|template| &template.name).collect();
    let mut value = json!({
        "name": component.name, "version": component.version, "kind": component.kind, "roles": component.roles,
        "distribution": component.distribution, "licence": component.licence,
        "bytes": compressed(image), "installed": image.installed_size(), "upstream_bytes": upstream(image),
        "proofs": proofs(image), "manifest": image.manifest, "reference": image.reference,
        "upstream": component.upstream, "packages": component.packages, "programs": component.programs,
        "modules": component.modules, "templates": templates, "images": component.images,
        "host_programs": component.host_programs,
    });
    if with_files {
        value["files"] = json!(image.files);
    }
    value
}

/// Columns two spaces apart, each at most so wide: what is longer is cut, with `…` at the cut. `right` are aligned right.
fn columns<const N: usize>(rows: &[[String; N]], widest: [usize; N], right: &[usize]) -> String {
    let cut = |cell: &str, column: usize| match cell.chars().count() {
        length if length > widest[column] => cell.chars().take(widest[column] - 1).chain(['…']).collect(),
        _ => cell.to_owned(),
    };
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().enumerate().map(|(column, cell)| cut(cell, column)).collect()).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| match (widths[column], right.contains(&column)) {
            (width, true) => format!("{cell:>width$}"),
            (width, false) => format!("{cell:width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
