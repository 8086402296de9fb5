//! What a host makes for itself: leaf certificates, kubeconfigs, and on masters their own bootstrap token.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

use super::verb;
use super::{ADMIN, Authorities, Held, Origin, Plan, TOKENS, Wanted, certificate_path, joined, key_path, known_tokens};
use crate::pki::kubeconfig::{self, Credential};
use crate::pki::leaf::PairFile;
use crate::pki::tokens::{self, Token, Tokens};
use crate::pki::{Authority, Decision, Inspection, KUBECONFIG, KUBELET_CLIENT, Leaf, Secret, inspect};
use crate::report::Explain as _;

impl Plan<'_> {
    pub(super) fn leaves(&mut self, wanted: &Wanted, authorities: &Authorities) -> Result<()> {
        let mut pairs = Vec::new();
        if wanted.needs.etcd {
            pairs.extend(wanted.subject.etcd_pairs());
        }
        if wanted.needs.master {
            pairs.extend(wanted.subject.master_pairs());
        }
        for file in pairs {
            let held = authorities.get(file.leaf.authority)?;
            match &held.signer {
                Some(signer) => self.own_pair(&file, signer)?,
                None => self.foreign_pair(&file, held, &wanted.subject.node)?,
            }
        }
        Ok(())
    }

    fn own_pair(&mut self, file: &PairFile, authority: &Authority) -> Result<()> {
        let certificate = self.read(&certificate_path(file.stem))?;
        let key = self.read_secret(&key_path(file.stem))?;
        match inspect::decide(&file.leaf, certificate.as_deref(), key.as_ref(), authority.inspection(), self.now) {
            Decision::Keep => match key {
                Some(key) => self.keep_secret(key_path(file.stem), &key),
                None => Ok(()),
            },
            Decision::Renew(reason) => {
                let pair = authority.issue(&file.leaf, self.now)?;
                self.pair(file.stem, pair, &verb(certificate.is_some(), &reason));
                Ok(())
            }
        }
    }

    /// A pair of an authority whose key is elsewhere: it must be usable, and only a new join file renews it.
    fn foreign_pair(&mut self, file: &PairFile, authority: &Held, node: &str) -> Result<()> {
        let path = certificate_path(file.stem);
        let certificate = self.read(&path)?;
        let key = self.read_secret(&key_path(file.stem))?;
        let decision =
            inspect::decide(&file.leaf, certificate.as_deref(), key.as_ref(), &authority.inspection, self.now);
        let usable = match (&decision, certificate.as_deref().map(Inspection::of_pem)) {
            (Decision::Keep, _) => true,
            // Only its age speaks against it: `status` says so in time.
            (Decision::Renew(reason), Some(Ok(found))) => {
                found.not_after > self.now && *reason == inspect::expires(found.not_after)
            }
            _ => false,
        };
        match (decision, key) {
            (_, Some(key)) if usable => self.keep_secret(key_path(file.stem), &key),
            (Decision::Renew(reason), _) => {
                Err(anyhow!("`{}` cannot be used: {reason}", path.display())).hint(format!(
                    "its authority's key is on the etcd nodes: on one of them run `installer join-file --node {node}`, \
                     then give that file here with `--join FILE`"
                ))
            }
            (Decision::Keep, _) => Ok(()),
        }
    }

    /// Kubeconfigs with a certificate inside, over this master's own apiserver. Their readers do not notice a new one.
    pub(super) fn master_kubeconfigs(&mut self, wanted: &Wanted, authority: &Authority) -> Result<()> {
        let mut files: Vec<(PathBuf, Leaf, Option<&'static str>)> = wanted
            .subject
            .master_kubeconfigs()
            .into_iter()
            .map(|(name, leaf, unit)| (PathBuf::from(format!("{KUBECONFIG}/{name}")), leaf, Some(unit)))
            .collect();
        files.push((ADMIN.into(), wanted.subject.admin(), None));
        for (path, leaf, unit) in files {
            let text = self.read_secret(&path)?;
            let decision = decide_kubeconfig(text.as_ref(), &leaf, &wanted.own_apiserver, authority, self.now);
            match (decision, text) {
                (Decision::Keep, Some(text)) => self.keep_secret(path, &text)?,
                (Decision::Keep, None) => {}
                (Decision::Renew(reason), text) => {
                    let pair = authority.issue(&leaf, self.now)?;
                    let written = kubeconfig::write(
                        &wanted.subject.cluster,
                        &wanted.own_apiserver,
                        &authority.pair().certificate,
                        &leaf.common_name,
                        &Credential::Pair(&pair),
                    );
                    self.secret_of(unit, path, written, &verb(text.is_some(), &reason));
                }
            }
        }
        Ok(())
    }

    /// Kubeconfigs of the node, over the local proxy: kube-proxy's, and until the kubelet has a certificate of its own the
    /// one with which it asks for that. A kubelet that has one renews it by itself, and its old token may be gone: then
    /// tokens are left alone.
    pub(super) fn node_kubeconfigs(&mut self, wanted: &Wanted, origin: Origin<'_>, authority: &Held) -> Result<()> {
        let node = &wanted.subject.node;
        let user = format!("system:node:{node}");
        self.node_kubeconfig(wanted, authority, "kube-proxy", &user, &Credential::File(KUBELET_CLIENT))?;
        if joined(self.host, node, &authority.inspection, self.now)? {
            return Ok(());
        }
        let token = self.token(wanted, origin)?;
        self.node_kubeconfig(
            wanted,
            authority,
            "bootstrap-kubelet",
            "kubelet-bootstrap",
            &Credential::Token(&token.text()),
        )
    }

    fn node_kubeconfig(
        &mut self,
        wanted: &Wanted,
        authority: &Held,
        name: &str,
        user: &str,
        credential: &Credential<'_>,
    ) -> Result<()> {
        let path = PathBuf::from(format!("{KUBECONFIG}/{name}.conf"));
        let written =
            kubeconfig::write(&wanted.subject.cluster, &wanted.proxy, &authority.certificate, user, credential);
        let unit = if name == "kube-proxy" { "kube-proxy.service" } else { "kubelet.service" };
        let found = self.read_secret(&path)?;
        if found.as_ref() == Some(&written) {
            return self.keep_secret(path, &written);
        }
        self.secret_of(Some(unit), path, written, &verb(found.is_some(), "it is not as wanted"));
        Ok(())
    }

    /// This node's token: the join file's, else the one on the host; a master can make its own.
    fn token(&mut self, wanted: &Wanted, origin: Origin<'_>) -> Result<Token> {
        let node = &wanted.subject.node;
        let path = PathBuf::from(TOKENS);
        let found = self.read_secret(&path)?;
        let mut known = known_tokens(self.host)?;
        if let Origin::Join(join) = origin
            && let Some(text) = join.files.get(TOKENS)
        {
            for (node, token) in Tokens::parse(text.expose())?.iter() {
                known.insert(node, token.clone());
            }
        }
        if wanted.needs.master && known.needs_new(node, self.now) {
            known.insert(node, Token::create(self.now, tokens::LIFETIME)?);
        }
        let token = known.get(node).filter(|token| token.expires > self.now).cloned();
        let Some(token) = token else {
            return Err(anyhow!("this host has no bootstrap token that is still valid")).hint(format!(
                "make a join file on a master (`installer join-file --node {node}`), then give it with `--join FILE`"
            ));
        };
        let written = known.write()?;
        match found {
            Some(found) if found == written => self.keep_secret(path, &written)?,
            found => self.secret(path, written, &verb(found.is_some(), "the token is missing or expires soon")),
        }
        Ok(token)
    }
}

fn decide_kubeconfig(
    text: Option<&Secret>,
    leaf: &Leaf,
    server: &str,
    authority: &Authority,
    now: jiff::Timestamp,
) -> Decision {
    let Some(text) = text else { return Decision::Renew("it does not exist".to_owned()) };
    let Some(parts) = kubeconfig::read(text.expose()) else {
        return Decision::Renew("it cannot be read".to_owned());
    };
    if parts.server != server {
        return Decision::Renew(format!("it names `{}`, not `{server}`", parts.server));
    }
    if parts.authority != authority.pair().certificate {
        return Decision::Renew("it names another authority".to_owned());
    }
    let (certificate, key) = parts.pair.map(|pair| (pair.certificate, pair.key)).unzip();
    inspect::decide(leaf, certificate.as_deref(), key.as_ref(), authority.inspection(), now)
}
