//! Day one: root's `kubectl` and `crictl` work at once, in login shells and out of them.
//!
//! Nothing that somebody else put there is overwritten: a foreign file or link is left and reported.

use std::path::Path;

use anyhow::Result;

use super::file::WantedFile;
use crate::context::{CURRENT, Context};
use crate::host::FileKind;
use crate::step::{Change, Check, Step, Target};

const MARK: &str = "# Written by Sealift.\n";

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine;

/// A link that is ours when it points below `/opt/sealift` or `/etc/sealift`.
struct Link {
    path: &'static str,
    target: String,
}

impl Step for CommandLine {
    fn name(&self) -> &'static str {
        "command-line"
    }

    fn title(&self) -> &'static str {
        "Give root kubectl and crictl"
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let links = links(context).into_iter().map(|link| Target::File(link.path.into()));
        Ok(links.chain(files(context).iter().map(WantedFile::target)).collect())
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let (mut changes, mut foreign) = (Vec::new(), Vec::new());
        for link in links(context) {
            match link.state(context)? {
                State::Ours => {}
                State::Foreign => foreign.push(link.path.to_owned()),
                State::Missing => changes.push(Change::new(format!("link {} to {}", link.path, link.target))),
            }
        }
        for file in files(context) {
            if is_foreign(context, &file)? {
                foreign.push(file.path.display().to_string());
            } else {
                changes.extend(file.change(context.host)?);
            }
        }
        Ok(if !changes.is_empty() {
            Check::Needed(changes)
        } else if foreign.is_empty() {
            Check::Done
        } else {
            Check::Kept(format!("not Sealift's, left as it is: {}", foreign.join(", ")))
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        for link in links(context) {
            if link.state(context)? == State::Missing {
                context.host.symlink(Path::new(link.path), Path::new(&link.target))?;
            }
        }
        for file in files(context) {
            if !is_foreign(context, &file)? {
                file.write(context.host)?;
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum State {
    Ours,
    Missing,
    Foreign,
}

impl Link {
    fn state(&self, context: &Context<'_>) -> Result<State> {
        let path = Path::new(self.path);
        Ok(match (context.host.entry(path)?, context.host.link_target(path)?) {
            (None, _) => State::Missing,
            (_, Some(target)) if target == Path::new(&self.target) => State::Ours,
            (_, Some(target)) if target.starts_with("/opt/sealift") || target.starts_with("/etc/sealift") => {
                State::Missing
            }
            _ => State::Foreign,
        })
    }
}

fn links(context: &Context<'_>) -> Vec<Link> {
    let mut links = Vec::new();
    let has = |component: &str| context.desired.has(component);
    if has("kubectl") {
        links.push(Link { path: "/usr/local/bin/kubectl", target: format!("{CURRENT}/kubectl/bin/kubectl") });
    }
    if has("crictl") {
        links.push(Link { path: "/usr/local/bin/crictl", target: format!("{CURRENT}/crictl/bin/crictl") });
    }
    if context.roles.master() {
        // Shells that read no profile (`ssh host kubectl …`) find the administrator's file here.
        links.push(Link { path: "/root/.kube/config", target: "/etc/sealift/admin.conf".to_owned() });
    }
    links
}

fn files(context: &Context<'_>) -> Vec<WantedFile> {
    let mut files = Vec::new();
    if context.roles.master() || context.roles.worker() {
        let endpoint = "unix:///run/containerd/containerd.sock";
        let text = format!("{MARK}runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\ntimeout: 10\n");
        files.push(WantedFile::public("/etc/crictl.yaml", text));
    }
    if context.roles.master() {
        let text = format!(
            "{MARK}if [ \"$(id -u)\" = 0 ] && [ -z \"${{KUBECONFIG:-}}\" ]; then\n    \
             export KUBECONFIG=/etc/sealift/admin.conf\nfi\n"
        );
        files.push(WantedFile::public("/etc/profile.d/sealift.sh", text));
        let text = format!("{MARK}source <({CURRENT}/kubectl/bin/kubectl completion bash)\n");
        files.push(WantedFile::public("/usr/local/share/bash-completion/completions/kubectl", text));
    }
    files
}

/// A file that exists and does not carry our mark.
fn is_foreign(context: &Context<'_>, file: &WantedFile) -> Result<bool> {
    Ok(match context.host.entry(&file.path)? {
        None => false,
        Some(entry) if entry.kind != FileKind::Regular => true,
        Some(_) => !context.host.read(&file.path)?.unwrap_or_default().starts_with(MARK.as_bytes()),
    })
}
