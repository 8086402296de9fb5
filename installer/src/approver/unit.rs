//! What `sealift-approver.service` is denied: it needs the network, its own state directory, and no capability at all.

/// Lines for the unit's `[Service]` section. Its `ExecStartPre=` lines must carry `+`, or they share these limits.
pub const HARDENING: &str = "\
StateDirectory=sealift/approver
StateDirectoryMode=0700
RuntimeDirectory=sealift/approver
RuntimeDirectoryMode=0700
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
";
