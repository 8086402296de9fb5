//! What tests of several modules begin with.

/// The text of a `cluster.toml`: the cluster's name, then `NAME ADDRESS [ROLES]` of each node.
macro_rules! cluster_toml {
    ($cluster:literal $(, $node:literal $address:literal [$role:literal $(, $more:literal)*])* $(,)?) => {
        concat!(
            "\n[cluster]\nname = \"", $cluster, "\"\n",
            $(
                "\n[[node]]\nname = \"", $node, "\"\naddress = \"", $address, "\"\nroles = [\"", $role, "\"",
                $(", \"", $more, "\"",)*
                "]\n",
            )*
        )
    };
}
pub(crate) use cluster_toml;
