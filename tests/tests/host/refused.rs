//! Bundles that must not be installed: exit code 4, and not a file of the host is different.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use anyhow::{Context, Result, ensure};
use bundle::fake::{Fake, Key, Region, hostile, regions};
use bundle::{Architecture, Digest};
use e2e::Finished;
use e2e::master::Master;

use super::stage::Stage;

/// What an installation would change first; compared after each refusal, everything else at the end.
const WATCHED: [&str; 4] = ["/etc", "/opt", "/var/lib", "/usr/local"];
/// The same on a host at work, where services write to their own directories.
const WATCHED_AT_WORK: [&str; 3] = ["/etc", "/opt", "/var/lib/sealift"];
/// On a tmpfs of the host, which no snapshot looks at.
const BUNDLE: &str = "/run/refused.bundle";

/// The museum of `bundle::fake`, carried to a real host and offered for installation.
pub(crate) fn hostile_bundles_change_nothing(stage: &Stage) -> Result<()> {
    let master = stage.bare()?;
    master.host.write("/run/fake.pub", Key::Publisher.public_text())?;
    member_of_a_founded_cluster(master)?;
    master.host.write(BUNDLE, Fake::new().bytes()?)?;
    let good = offer(master, &["verify"])?;
    ensure!(good.success(), "a good bundle is refused, so that refusals prove nothing: {}", good.tail());

    let everything = master.host.snapshot()?;
    let before = master.host.snapshot_of(&WATCHED)?;
    let mut crimes: Vec<(String, Vec<u8>)> = hostile()?.into_iter().map(|crime| (crime.name, crime.bytes)).collect();
    crimes.push(("wrong-architecture".to_owned(), Fake::new().architecture(Architecture::Arm64).bytes()?));
    ensure!(crimes.len() > 100, "only {} crimes", crimes.len());
    let mut wrong = Vec::new();
    for (name, bytes) in &crimes {
        master.host.write(BUNDLE, bytes)?;
        let refused = offer(master, &["install", "--role", "etcd", "--config", "/run/etcd.toml"])?;
        if refused.code != Some(4) {
            wrong.push(format!("{name}: {:?} {}", refused.code, refused.tail()));
        }
        let changes = before.changes(&master.host.snapshot_of(&WATCHED)?);
        ensure!(changes.is_empty(), "{name} changed {changes:#?}");
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} not refused with exit code 4:\n{}",
        wrong.len(),
        crimes.len(),
        wrong.join("\n")
    );
    let changes = everything.changes(&master.host.snapshot()?);
    ensure!(changes.is_empty(), "refusals changed {changes:#?}");
    master.host.run("rm -r /etc/sealift")?;
    Ok(())
}

/// The museum's bundles have no more than etcd, so they are offered to a host that has no other role and its founding
/// already: nothing but the bundle can be refused there.
fn member_of_a_founded_cluster(master: &Master) -> Result<()> {
    let roles = "sed 's/\"master\"/\"master\", \"etcd\"/' /root/cluster.toml > /run/etcd.toml";
    master.host.run(roles)?;
    master.host.run("install -d -m 0700 /etc/sealift/secrets")?;
    let founding = r#"{"id":"0123456789abcdef0123456789abcdef"}"#;
    master.host.run(&format!("umask 077; echo '{founding}' > /etc/sealift/secrets/founding.json"))?;
    Ok(())
}

/// The real bundle, signed by the right key, with one bit flipped in each kind of place, cut, lengthened, and offered with no or another key.
pub(crate) fn a_damaged_real_bundle_changes_nothing(stage: &Stage) -> Result<()> {
    let master = stage.bare()?;
    let (yard, product) = stage.product()?;
    let before = master.host.snapshot()?;
    let path = master.host.file("/root/x.bundle");
    let mut file = fs_err::OpenOptions::new().read(true).write(true).open(&path)?.into_parts().0;
    let size = fs_err::metadata(&product.bundle)?.len();
    let refused = |what: &str| -> Result<()> {
        let refused = master.plainly("install")?;
        ensure!(refused.code == Some(4), "{what}: {:?} {}", refused.code, refused.tail());
        Ok(())
    };

    let regions = regions(&mut file)?;
    for (what, offset) in places(&regions)? {
        flip(&mut file, offset)?;
        refused(&what)?;
        flip(&mut file, offset)?;
    }
    let layer = regions.iter().rev().max_by_key(|region| region.size).context("no regions")?;
    for length in [regions[1].header, regions[2].header, layer.content, layer.content + layer.size / 2, size - 1] {
        // Cut on the way: a copy is quicker than to carry the bundle anew.
        master.host.run("cp --reflink=auto /root/x.bundle /root/whole")?;
        file.set_len(length)?;
        refused(&format!("cut at {length}"))?;
        master.host.run("mv /root/whole /root/x.bundle")?;
        file = fs_err::OpenOptions::new().read(true).write(true).open(&path)?.into_parts().0;
    }
    file.seek(SeekFrom::End(0))?;
    file.write_all(b"x")?;
    refused("appended data")?;
    file.set_len(size)?;

    yard.keygen("stranger")?;
    master.host.copy(&yard.directory().join("stranger.pub"), "/run/stranger.pub")?;
    let argv = ["install", "--role", "master", "--config", "/root/cluster.toml", "--bundle", "/root/x.bundle"];
    let stranger = master.host.inside("/root/installer").args(argv).args(["--key", "/run/stranger.pub"]).finish()?;
    ensure!(stranger.code == Some(4), "another key: {:?} {}", stranger.code, stranger.tail());
    let none = master.host.inside("/root/installer").args(argv).finish()?;
    ensure!(none.code == Some(4), "no key: {:?} {}", none.code, none.tail());

    ensure!(
        Digest::of(&fs_err::read(&path)?) == Digest::of(&fs_err::read(&product.bundle)?),
        "the test lost the bundle"
    );
    let changes = before.changes(&master.host.snapshot()?);
    ensure!(changes.is_empty(), "refusals changed {changes:#?}");
    Ok(())
}

/// Once a bundle was accepted, an older one and another one of the same sequence are not, although they are signed by a trusted key.
pub(crate) fn older_and_other_bundles_are_refused(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    let accepted: serde_json::Value =
        serde_json::from_str(&master.host.run("cat /var/lib/sealift/accepted.json")?.stdout)
            .context("reading accepted.json")?;
    let name = e2e::product::MANIFEST;
    let sequence = find_number(&accepted, "sequence").context("no sequence in accepted.json")?;
    ensure!(sequence >= 1 && accepted.to_string().contains(name), "{accepted}");
    master.host.write("/run/fake.pub", Key::Publisher.public_text())?;
    let before = master.host.snapshot_of(&WATCHED_AT_WORK)?;
    for (what, fake) in [
        ("an older one", Fake::new().name(name).sequence(sequence - 1)),
        ("another one of the same sequence", Fake::new().name(name).sequence(sequence)),
        ("one of another release line", Fake::new().name("another-line").sequence(sequence + 1)),
    ] {
        master.host.write(BUNDLE, fake.bytes()?)?;
        let refused = offer(master, &["install", "--role", "master", "--config", "/root/cluster.toml"])?;
        ensure!(refused.code == Some(4), "{what}: {:?} {}", refused.code, refused.tail());
        let tail = refused.tail();
        let reason = tail.contains("sequence") || tail.contains("its name is");
        ensure!(reason, "{what} is refused for another reason: {}", refused.tail());
        let changes = before.changes(&master.host.snapshot_of(&WATCHED_AT_WORK)?);
        ensure!(changes.is_empty(), "{what} changed {changes:#?}");
    }
    Ok(())
}

fn offer(master: &Master, arguments: &[&str]) -> Result<Finished> {
    let bundle = ["--bundle", BUNDLE, "--key", "/run/fake.pub"];
    master.host.inside("/root/installer").args(arguments).args(bundle).finish()
}

/// One bit in each kind of place: layout mark, index, signature, a manifest or config, first and last layer.
fn places(regions: &[Region]) -> Result<Vec<(String, u64)>> {
    let blobs: Vec<&Region> = regions.iter().filter(|region| region.name.starts_with("blobs/")).collect();
    let large: Vec<&&Region> = blobs.iter().filter(|region| region.size > 100_000).collect();
    let (Some(small), Some(first), Some(last)) = (blobs.first(), large.first(), large.last()) else {
        anyhow::bail!("the bundle has no blobs");
    };
    let mut places = Vec::new();
    for region in regions.iter().take(3).chain([*small, **first, **last]) {
        places.push((format!("header of {}", region.name), region.header + 150));
        places.push((format!("first byte of {}", region.name), region.content));
        places.push((format!("middle of {}", region.name), region.content + region.size / 2));
        places.push((format!("last byte of {}", region.name), region.content + region.size - 1));
    }
    Ok(places)
}

fn flip(file: &mut File, offset: u64) -> Result<()> {
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&[byte[0] ^ 1])?;
    Ok(())
}

/// The first number under a name, anywhere in a value.
fn find_number(value: &serde_json::Value, name: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => map
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| map.values().find_map(|inner| find_number(inner, name))),
        serde_json::Value::Array(list) => list.iter().find_map(|inner| find_number(inner, name)),
        _ => None,
    }
}
