//! What `sealift-agent.service` is denied: it needs routes and the packet filter, and little else.

/// Lines for the unit's `[Service]` section. Its `ExecStartPre=` lines must carry `+`, or they share these limits.
///
/// systemd is asked to reload the proxy over its socket (AF_UNIX), `ip` and `nft` speak netlink. The older kind of
/// `iptables` wants a raw socket and its lock file.
pub const HARDENING: &str = "\
StateDirectory=sealift/agent
StateDirectoryMode=0700
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
ProtectSystem=strict
ConfigurationDirectory=cni/net.d
ReadWritePaths=-/etc/cni/net.d -/run/xtables.lock
ExecStartPre=-+/bin/touch /run/xtables.lock
ProtectHome=yes
PrivateTmp=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
";
