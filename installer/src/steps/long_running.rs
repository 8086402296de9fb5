//! The units of the installer's own long-running modes, `installer agent` and `installer approver`.
//!
//! They name the installer by its digest, so that another installer means another unit file, and their started stamp is a
//! copy of that file: a rerun restarts them exactly when the program or the unit has changed.

use crate::context::Context;
use crate::store::program_path;

/// One of the modes as a service.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// The unit, with suffix.
    pub unit: &'static str,
    /// `installer MODE`.
    pub mode: &'static str,
    /// For `systemctl status`.
    pub description: &'static str,
    /// Units to start after, without requiring them.
    pub after: &'static str,
    /// Further lines of `[Service]`: what the mode is denied.
    pub hardening: &'static str,
}

/// The text of its unit.
pub fn unit(context: &Context<'_>, mode: &Mode) -> String {
    let Mode { unit: name, mode, description, after, hardening } = mode;
    let installer = program_path(&context.installer);
    let installer = installer.display();
    let oom = if context.facts.oom_score_adj { "OOMScoreAdjust=-500\n" } else { "" };
    format!(
        "[Unit]\n\
         Description={description}\n\
         Wants=network-online.target\n\
         After=network-online.target {after}\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStartPre=-+/bin/mkdir -p /run/sealift/started\n\
         ExecStartPre=+/bin/cp -f /etc/systemd/system/{name} /run/sealift/started/{name}\n\
         ExecStart={installer} {mode}\n\
         Restart=always\n\
         RestartSec=3\n\
         {oom}\
         {hardening}\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}
