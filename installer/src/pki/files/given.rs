//! What cannot be made twice: given by a join file, made once by the host that founds the cluster, kept ever after.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Authorities, ENCRYPTION, Held, Origin, Plan, TOKENS, Wanted, certificate_path, key_path};
use crate::cluster::founding::{self, Founder, Founding};
use crate::join::Join;
use crate::join::contents::{service_account_private, service_account_public};
use crate::pki::leaf::ETCD_CLIENT;
use crate::pki::secrets::{self, ServiceAccountKey};
use crate::pki::{Authority, AuthorityName, Inspection};
use crate::report::Explain as _;

impl Plan<'_> {
    /// All of them, and the authorities among them.
    pub(super) fn secrets(&mut self, wanted: &Wanted, origin: Origin<'_>) -> Result<Authorities> {
        let may_make = match origin {
            Origin::Join(join) => {
                self.given(join, wanted)?;
                false
            }
            Origin::Host | Origin::Found => self.founding(wanted, origin)?,
        };
        let mut held = Vec::new();
        for (name, key) in wanted.needs.authorities() {
            held.push(self.authority(name, key, &wanted.subject.cluster, may_make)?);
        }
        if wanted.needs.master {
            self.service_account(may_make)?;
            self.encryption(may_make)?;
        }
        Ok(Authorities(held))
    }

    /// Whether this host may make secrets: it founds the cluster, and has issued no certificate yet.
    fn founding(&mut self, wanted: &Wanted, origin: Origin<'_>) -> Result<bool> {
        if let Some(founding) = Founding::read(self.host)? {
            self.keep_secret(founding::PATH.into(), &founding.write()?)?;
            return Ok(founding.made_here && !self.issued()?);
        }
        for path in wanted.needs.paths() {
            if self.host.exists(Path::new(&path))? {
                return Err(anyhow!("`{path}` exists, but `{}` does not", founding::PATH))
                    .hint("a join file was not taken in whole: run this again with `--join FILE`");
            }
        }
        if matches!(origin, Origin::Host) {
            return Err(anyhow!("this host has no secrets of the cluster")).hint(format!(
                "make a join file on a master (`installer join-file --node {}`), then give it with `--join FILE`",
                wanted.subject.node
            ));
        }
        let founder = Founder { name: wanted.subject.node.clone(), address: wanted.subject.address };
        let founding = Founding { founders: vec![founder], ..Founding::create([], true)? };
        self.secret(founding::PATH.into(), founding.write()?, "create: this host founds the cluster");
        Ok(true)
    }

    /// What the join file holds is written where nothing is yet; nothing is overwritten.
    fn given(&mut self, join: &Join, wanted: &Wanted) -> Result<()> {
        if join.node != wanted.subject.node {
            bail!("the join file is for node `{}`, this host is `{}`", join.node, wanted.subject.node);
        }
        if let Some(known) = Founding::read(self.host)?
            && known.id != join.founding.id
        {
            return Err(anyhow!("this host belongs to another cluster than the join file"))
                .hint("to join the other cluster, first leave this one: `installer reset`");
        }
        let renewed = self.renewed_etcd_client(join)?;
        for (path, text) in join.files.iter().filter(|(path, _)| *path != TOKENS) {
            let (path, found) = (PathBuf::from(path), self.read_secret(Path::new(path))?);
            let secret = !path.extension().is_some_and(|extension| extension == "crt" || extension == "pub");
            match found {
                Some(found) if found == *text && secret => self.keep_secret(path, text)?,
                Some(found) if found == *text => {}
                None if secret => self.secret(path, text.clone(), "create: from the join file"),
                None => self.public(path, text.expose().to_owned(), "create: from the join file"),
                Some(_) if renewed && is_etcd_client(&path) && secret => {
                    self.secret(path, text.clone(), "renew: from the join file");
                }
                Some(_) if renewed && is_etcd_client(&path) => {
                    self.public(path, text.expose().to_owned(), "renew: from the join file");
                }
                Some(_) => {
                    return Err(anyhow!("`{}` is not the one of the join file", path.display())).hint(
                        "a host that has its secrets needs no join file: leave `--join` out; `installer reset` takes \
                         them off",
                    );
                }
            }
        }
        Ok(())
    }

    /// `founding.json` of a join file is written last: without it the host knows that not all was taken in.
    pub(super) fn given_founding(&mut self, wanted: &Wanted, origin: Origin<'_>) -> Result<()> {
        let Origin::Join(join) = origin else { return Ok(()) };
        let given = join.founding.for_node(wanted.needs.etcd);
        let found = Founding::read(self.host)?;
        // A node that has got etcd's role since then learns of its founding now.
        let learns = found.as_ref().is_some_and(|found| found.etcd_token.is_none() && given.etcd_token.is_some());
        match found {
            Some(found) if !learns => self.keep_secret(founding::PATH.into(), &found.write()?),
            _ => {
                self.secret(founding::PATH.into(), given.write()?, "create: from the join file");
                Ok(())
            }
        }
    }

    /// An apiserver's client certificate for a foreign etcd cannot be made here: a new join file renews it. True if the
    /// given one is of the same authority and lasts as long as the present one, at least (of which the key may be missing).
    fn renewed_etcd_client(&self, join: &Join) -> Result<bool> {
        let path = certificate_path(ETCD_CLIENT);
        let given = join.files.get(&path.display().to_string());
        let authority = self.read(&certificate_path(AuthorityName::Etcd.stem()))?;
        let (Some(given), Some(found), Some(authority)) = (given, self.read(&path)?, authority) else {
            return Ok(false);
        };
        let given = Inspection::of_pem(given.expose())?;
        let lasts = Inspection::of_pem(&found).map_or(true, |found| found.not_after <= given.not_after);
        Ok(lasts && given.signed_by(&Inspection::of_pem(&authority)?))
    }

    /// Whether this host has already issued itself certificates: then the secrets must exist.
    fn issued(&self) -> Result<bool> {
        for stem in ["apiserver", "etcd/server", "etcd/peer"] {
            if self.host.exists(&certificate_path(stem))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn authority(&mut self, name: AuthorityName, with_key: bool, cluster: &str, may_make: bool) -> Result<Held> {
        let (certificate, key) = (certificate_path(name.stem()), key_path(name.stem()));
        let (text, secret) = match (self.read(&certificate)?, self.read_secret(&key)?) {
            (Some(text), secret) => (text, secret),
            (None, _) if may_make => {
                let authority = Authority::create(name, cluster, self.now)?;
                self.pair(name.stem(), authority.pair().clone(), "create");
                return Ok(held(name, authority));
            }
            (None, _) => return Err(missing(&certificate)),
        };
        let inspection = Inspection::of_pem(&text).with_context(|| format!("reading `{}`", certificate.display()))?;
        if inspection.not_after <= self.now {
            bail!("authority `{}` expired on {}", certificate.display(), inspection.not_after);
        }
        if !with_key {
            return Ok(Held { name, certificate: text, inspection, signer: None });
        }
        let Some(secret) = secret else {
            bail!("`{}` exists without its key `{}`", certificate.display(), key.display())
        };
        let authority =
            Authority::load(&text, &secret).with_context(|| format!("reading `{}`", certificate.display()))?;
        self.keep_secret(key, &secret)?;
        Ok(held(name, authority))
    }

    fn service_account(&mut self, may_make: bool) -> Result<()> {
        let (public, private) = (PathBuf::from(service_account_public()), PathBuf::from(service_account_private()));
        match self.read_secret(&private)? {
            Some(secret) => {
                let derived = ServiceAccountKey::public_of(&secret)?;
                match self.read(&public)? {
                    None => self.public(public, derived, "create"),
                    // Further keys may have been added by a rotation; ours must be among them.
                    Some(text) if !text.contains(derived.trim()) => {
                        bail!("`{}` does not hold the public half of `{}`", public.display(), private.display())
                    }
                    Some(_) => {}
                }
                self.keep_secret(private, &secret)
            }
            None if may_make && self.read(&public)?.is_none() => {
                let key = ServiceAccountKey::create()?;
                self.secret(private, key.private, "create");
                self.public(public, key.public, "create");
                Ok(())
            }
            None => Err(missing(&private)),
        }
    }

    fn encryption(&mut self, may_make: bool) -> Result<()> {
        let path = PathBuf::from(ENCRYPTION);
        match self.read_secret(&path)? {
            Some(text) => {
                if let Some(problem) = secrets::encryption_config_problem(text.expose()) {
                    bail!("`{ENCRYPTION}`: {problem}");
                }
                self.keep_secret(path, &text)
            }
            None if may_make => {
                self.secret(path, secrets::encryption_config()?, "create");
                Ok(())
            }
            None => bail!("`{ENCRYPTION}` is missing: without it no Secret in etcd can be read"),
        }
    }
}

fn held(name: AuthorityName, authority: Authority) -> Held {
    Held {
        name,
        certificate: authority.pair().certificate.clone(),
        inspection: authority.inspection().clone(),
        signer: Some(authority),
    }
}

fn is_etcd_client(path: &Path) -> bool {
    path == certificate_path(ETCD_CLIENT) || path == key_path(ETCD_CLIENT)
}

/// A second one is never made: what the first one signed or sealed would be lost.
fn missing(path: &Path) -> anyhow::Error {
    anyhow!("`{}` is missing, and it cannot be made twice", path.display())
        .hint("get it back from a backup, or from another host of the cluster with `installer join-file` and `--join`")
}
