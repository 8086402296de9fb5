//! The objects of bootstrap RBAC: who may do what, and nothing more. Source: KUBERNETES.md, "Node identity and approval".
//!
//! There is deliberately no binding to `…:nodeclient`: it would let whoever holds any bootstrap token become any node. Nor
//! is there one to `…:selfnodeclient`: the controller-manager would for ever renew the certificate of a node that has been
//! removed; the approver renews those of the nodes in the config.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::record::NAME as RECORD;
use crate::pki::tokens;

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
/// The namespace of everything here.
pub const SYSTEM: &str = "kube-system";
/// The user that `installer approver` is.
pub const APPROVER: &str = "sealift:csr-approver";
const NODES: &str = "system:nodes";

/// All objects, in the order in which they are to be made. `tokens` are the ids that the approver may delete once they are
/// spent: all of the cluster's, so that every master wants the same.
pub fn objects<'a>(tokens: impl IntoIterator<Item = &'a String>) -> Vec<Value> {
    let spendable: BTreeSet<String> = tokens.into_iter().map(|id| tokens::object_name(id)).collect();
    let mut objects = vec![
        bind("sealift:node-bootstrapper", "system:node-bootstrapper", &group(tokens::GROUP)),
        bind("sealift:apiserver-kubelet-client", "system:kubelet-api-admin", &user("sealift:apiserver-kubelet-client")),
        bind("sealift:cluster-admins", "cluster-admin", &group("sealift:cluster-admins")),
        bind("sealift:node-proxier", "system:node-proxier", &group(NODES)),
        cluster_role(APPROVER, &approver_rules()),
        bind(APPROVER, APPROVER, &user(APPROVER)),
        cluster_role("sealift:agent", &json!([rule("", "nodes", &["get", "list"])])),
        bind("sealift:agent", "sealift:agent", &group(NODES)),
    ];
    objects.extend(role(
        "sealift:cluster-record",
        &json!([named_rule("configmaps", &[RECORD], &["get"])]),
        &json!([
            { "apiGroup": GROUP, "kind": "Group", "name": NODES },
            { "apiGroup": GROUP, "kind": "User", "name": APPROVER },
        ]),
    ));
    if !spendable.is_empty() {
        let names: Vec<&str> = spendable.iter().map(String::as_str).collect();
        let rules = json!([named_rule("secrets", &names, &["delete"])]);
        objects.extend(role("sealift:spent-tokens", &rules, &json!([user(APPROVER)])));
    }
    objects
}

fn approver_rules() -> Value {
    json!([
        rule("certificates.k8s.io", "certificatesigningrequests", &["get", "list", "watch"]),
        rule("certificates.k8s.io", "certificatesigningrequests/approval", &["update"]),
        {
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["signers"],
            "resourceNames": ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"],
            "verbs": ["approve"],
        },
        rule("", "nodes", &["get", "patch"]),
    ])
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs })
}

fn named_rule(resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": verbs })
}

fn user(name: &str) -> Value {
    json!({ "apiGroup": GROUP, "kind": "User", "name": name })
}

fn group(name: &str) -> Value {
    json!({ "apiGroup": GROUP, "kind": "Group", "name": name })
}

fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({ "apiVersion": VERSION, "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules })
}

fn bind(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

fn role(name: &str, rules: &Value, subjects: &Value) -> [Value; 2] {
    let metadata = json!({ "name": name, "namespace": SYSTEM });
    [
        json!({ "apiVersion": VERSION, "kind": "Role", "metadata": metadata, "rules": rules }),
        json!({
            "apiVersion": VERSION,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": { "apiGroup": GROUP, "kind": "Role", "name": name },
            "subjects": subjects,
        }),
    ]
}
