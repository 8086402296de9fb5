//! `builder inspect`: what is inside, from the head of the bundle. Layers are not read; without a key nothing is proven.

use std::io::BufReader;

use bundle::component::Entry;
use bundle::{Bundle, Image, UnverifiedBundle};
use serde_json::{Value, json};

use crate::cli::InspectArgs;
use crate::keys;
use crate::output::{Output, bytes};

/// Shows the bundle.
pub(super) fn run(args: &InspectArgs, output: &Output) -> anyhow::Result<()> {
    let opened = UnverifiedBundle::open(BufReader::new(fs_err::File::open(&args.bundle)?))?;
    let claimed = opened.claimed_signers();
    let (bundle, state) = if args.keys.is_empty() {
        (opened.without_signatures()?, "UNVERIFIED: give `--key FILE` to check the signatures".to_owned())
    } else {
        let bundle = opened.verify(&keys::trust(&args.keys, 1)?)?;
        let signers = bundle.signers().join(", ");
        (bundle, format!("head verified by {signers}; `builder verify` checks every byte"))
    };
    if output.is_json() {
        output.result_json(&describe(&bundle, &claimed, !args.keys.is_empty(), args.files));
    } else {
        output.result(&table(&bundle, &claimed, &state, args.files));
    }
    Ok(())
}

fn kind(image: &Image) -> &'static str {
    image.component.kind.as_str()
}

fn roles(image: &Image) -> String {
    let name = |role| serde_json::to_value(role).ok().and_then(|value| Some(value.as_str()?.to_owned()));
    image.component.roles.iter().filter_map(name).collect::<Vec<_>>().join(",")
}

fn compressed(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.size).sum()
}

#[expect(clippy::format_push_string, reason = "writing to a String would need a `Result` that cannot fail")]
fn table<R>(bundle: &Bundle<R>, claimed: &[String], state: &str, with_files: bool) -> String {
    let release = bundle.release();
    let mut text = format!(
        "{} {} for {}, sequence {}, created {}\nindex     {}\nlock      {}\ninstaller {}\nsigned by {} ({state})\n\n",
        release.name,
        release.version,
        release.architecture,
        release.sequence,
        release.created,
        bundle.index_digest(),
        release.lock,
        release.installer,
        if claimed.is_empty() { "nobody".to_owned() } else { claimed.join(", ") },
    );
    let mut rows =
        vec![["COMPONENT", "VERSION", "KIND", "ROLES", "IN BUNDLE", "INSTALLED", "LICENCE"].map(str::to_owned)];
    for image in bundle.images() {
        let component = &image.component;
        rows.push([
            component.name.to_string(),
            component.version.to_string(),
            kind(image).to_owned(),
            roles(image),
            bytes(compressed(image)),
            bytes(image.installed_size()),
            component.licence.clone(),
        ]);
    }
    text += &columns(&rows);
    text += "\nUPSTREAM\n";
    for image in bundle.images() {
        for upstream in &image.component.upstream {
            text += &format!(
                "{}\n  {} ({})\n  {}\n",
                image.component.name,
                upstream.url,
                bytes(upstream.size),
                upstream.sha256
            );
        }
        if let Some(reference) = &image.reference {
            text += &format!("  as {reference}\n");
        }
    }
    if with_files {
        text += "\nFILES\n";
        for image in bundle.images() {
            for file in &image.files {
                let what = match &file.entry {
                    Entry::Directory => "directory".to_owned(),
                    Entry::Regular { mode, size, sha256 } => format!("{mode:04o} {size} {sha256}"),
                    Entry::Symlink { target } => format!("-> {target}"),
                };
                text += &format!("{}/{} {what}\n", image.component.name, file.path);
            }
        }
    }
    text.trim_end().to_owned()
}

/// Left-aligned columns, two spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn describe<R>(bundle: &Bundle<R>, claimed: &[String], verified: bool, with_files: bool) -> Value {
    let release = bundle.release();
    let components: Vec<Value> = bundle
        .images()
        .iter()
        .map(|image| {
            let component = &image.component;
            let mut value = json!({
                "name": component.name, "version": component.version, "kind": component.kind, "roles": component.roles,
                "licence": component.licence, "bytes": compressed(image), "installed": image.installed_size(),
                "manifest": image.manifest, "reference": image.reference, "upstream": component.upstream,
                "packages": component.packages, "programs": component.programs,
            });
            if with_files && let Some(object) = value.as_object_mut() {
                object.insert("files".to_owned(), json!(image.files));
            }
            value
        })
        .collect();
    json!({
        "name": release.name, "version": release.version, "architecture": release.architecture, "sequence": release.sequence,
        "created": release.created, "lock": release.lock, "installer": release.installer, "index": bundle.index_digest(),
        "claimed_signers": claimed, "signers": bundle.signers(), "verified": verified, "components": components,
    })
}
