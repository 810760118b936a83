use std::sync::LazyLock;

use super::*;

/// What `kubectl get clusterroles` of a Kubernetes 1.33 with ClusterTrustBundles shows; `system:controller:` stands before those
/// of the second list.
const CLUSTER_ROLES: &str = "admin cluster-admin edit system:aggregate-to-admin \
    system:aggregate-to-edit system:aggregate-to-view system:auth-delegator system:basic-user \
    system:certificates.k8s.io:certificatesigningrequests:nodeclient \
    system:certificates.k8s.io:certificatesigningrequests:selfnodeclient \
    system:certificates.k8s.io:kube-apiserver-client-approver \
    system:certificates.k8s.io:kube-apiserver-client-kubelet-approver \
    system:certificates.k8s.io:kubelet-serving-approver \
    system:certificates.k8s.io:legacy-unknown-approver \
    system:cluster-trust-bundle-discovery system:discovery system:heapster \
    system:kube-aggregator system:kube-controller-manager system:kube-dns system:kube-scheduler \
    system:kubelet-api-admin system:monitoring system:node system:node-bootstrapper \
    system:node-problem-detector system:node-proxier system:persistent-volume-provisioner \
    system:public-info-viewer system:service-account-issuer-discovery system:volume-scheduler view";

const CONTROLLERS: &str = "attachdetach-controller certificate-controller \
    clusterrole-aggregation-controller cronjob-controller daemon-set-controller \
    deployment-controller disruption-controller endpoint-controller endpointslice-controller \
    endpointslicemirroring-controller ephemeral-volume-controller expand-controller \
    generic-garbage-collector horizontal-pod-autoscaler job-controller \
    legacy-service-account-token-cleaner namespace-controller node-controller \
    persistent-volume-binder pod-garbage-collector pv-protection-controller \
    pvc-protection-controller replicaset-controller replication-controller \
    resourcequota-controller root-ca-cert-publisher route-controller selinux-warning-controller \
    service-account-controller service-cidrs-controller service-controller statefulset-controller \
    ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller";

/// Bindings of cluster roles that are not controllers': of the role of the same name.
const BOUND: &str = "cluster-admin system:basic-user system:cluster-trust-bundle-discovery \
    system:discovery \
    system:kube-controller-manager system:kube-dns system:kube-scheduler system:monitoring system:node \
    system:node-proxier system:public-info-viewer system:service-account-issuer-discovery \
    system:volume-scheduler";

const ROLES: &str = "kube-public/system:controller:bootstrap-signer \
    kube-system/extension-apiserver-authentication-reader \
    kube-system/system::leader-locking-kube-controller-manager \
    kube-system/system::leader-locking-kube-scheduler \
    kube-system/system:controller:bootstrap-signer kube-system/system:controller:cloud-provider \
    kube-system/system:controller:token-cleaner";

fn defaults() -> &'static [Value] {
    static DEFAULTS: LazyLock<Vec<Value>> = LazyLock::new(super::defaults);
    &DEFAULTS
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn of_kind(kind: &str) -> Vec<String> {
    let own = |object: &&Value| meta::name(object).starts_with("orchestrator:");
    let all = defaults()
        .iter()
        .filter(|object| object["kind"] == kind && !own(object));
    sorted(all.map(|object| match meta::namespace(object) {
        "" => meta::name(object).to_owned(),
        namespace => format!("{namespace}/{}", meta::name(object)),
    }))
}

fn with_controllers(names: &str) -> Vec<String> {
    let controllers = CONTROLLERS.split_whitespace();
    let controllers = controllers.map(|name| format!("system:controller:{name}"));
    sorted(
        names
            .split_whitespace()
            .map(str::to_owned)
            .chain(controllers),
    )
}

fn find(kind: &str, name: &str) -> &'static Value {
    let mut all = defaults().iter();
    let found = all.find(|object| object["kind"] == kind && meta::name(object) == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn the_default_roles_and_bindings_have_the_names_of_kubernetes() {
    assert_eq!(of_kind("ClusterRole"), with_controllers(CLUSTER_ROLES));
    assert_eq!(of_kind("ClusterRoleBinding"), with_controllers(BOUND));
    let roles = || ROLES.split_whitespace().map(str::to_owned);
    assert_eq!(of_kind("Role"), sorted(roles()));
    let bindings =
        roles().map(|name| name.replace("/extension-apiserver-", "/system::extension-apiserver-"));
    assert_eq!(of_kind("RoleBinding"), sorted(bindings));
}

#[test]
fn every_default_is_valid_and_every_binding_is_of_a_default_role() {
    let names = [of_kind("ClusterRole"), of_kind("Role")];
    for object in defaults() {
        let plural = object["kind"].as_str().expect("a kind").to_lowercase() + "s";
        let resource = bootstrap::find(GROUP, &plural).expect("a kind of the group");
        made(resource, object.clone(), Expect::Absent).expect("it is valid");
        let role = &object["roleRef"];
        if role.is_null() {
            continue;
        }
        let name = role["name"].as_str().expect("a name");
        let [cluster_roles, roles] = &names;
        let is_default = match role["kind"].as_str() {
            Some("Role") => roles.contains(&format!("{}/{name}", meta::namespace(object))),
            _ => cluster_roles.iter().any(|known| known == name) || name == meta::name(object),
        };
        assert!(is_default, "{object}");
        // A controller's role is its own and nobody else's; nodes have their authorizer.
        if let Some(of) = meta::name(object).strip_prefix("system:controller:") {
            let account =
                json!([{"kind": "ServiceAccount", "name": of, "namespace": "kube-system"}]);
            assert_eq!(object["subjects"], account);
        }
    }
    assert!(find("ClusterRoleBinding", "system:node")["subjects"].is_null());
}

/// Controllers that Kubernetes does not have.
const OURS: [&str; 1] = ["controller:config-rollout-controller"];

/// Each row of our own table adds to a role that Kubernetes has for the same account.
#[test]
fn what_our_controllers_have_beyond_kubernetes_is_not_in_its_roles_already() {
    let own = defaults()
        .iter()
        .filter(|object| object["kind"] == "ClusterRole");
    let own = own.filter_map(|role| Some((role, meta::name(role).strip_prefix("orchestrator:")?)));
    let own = own.filter(|(_, name)| name.starts_with("controller:"));
    for (role, name) in own {
        let rules = |role: &Value| -> Vec<Rule> {
            serde_json::from_value(role["rules"].clone()).expect("rules")
        };
        let theirs = match OURS.contains(&name) {
            true => Vec::new(),
            false => rules(find("ClusterRole", &format!("system:{name}"))),
        };
        let added = missing(&theirs, &rules(role));
        let pieces = missing(&[], &rules(role));
        assert_eq!(added, pieces, "{name}");
        find("ClusterRoleBinding", &format!("orchestrator:{name}"));
    }
}

#[test]
fn the_default_roles_have_the_rules_of_kubernetes() {
    let events = json!({"verbs": ["create", "patch", "update"], "apiGroups": ["", "events.k8s.io"],
        "resources": ["events"]});
    let read = json!(["get", "list", "watch"]);
    let cases = [
        (
            "cluster-admin",
            json!([
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]),
        ),
        (
            "system:basic-user",
            json!([
                {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
                    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
                {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"],
                    "resources": ["selfsubjectreviews"]},
            ]),
        ),
        (
            "system:controller:replicaset-controller",
            json!([
                {"verbs": ["get", "list", "update", "watch"], "apiGroups": ["apps", "extensions"],
                    "resources": ["replicasets"]},
                {"verbs": ["update"], "apiGroups": ["apps", "extensions"],
                    "resources": ["replicasets/status"]},
                {"verbs": ["update"], "apiGroups": ["apps", "extensions"],
                    "resources": ["replicasets/finalizers"]},
                {"verbs": ["create", "delete", "list", "patch", "watch"], "apiGroups": [""],
                    "resources": ["pods"]},
                events,
            ]),
        ),
        (
            "system:certificates.k8s.io:kubelet-serving-approver",
            json!([{"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"],
                "resources": ["signers"], "resourceNames": ["kubernetes.io/kubelet-serving"]}]),
        ),
        (
            "system:kube-aggregator",
            json!([{"verbs": read, "apiGroups": [""], "resources": ["endpoints", "services"]}]),
        ),
    ];
    for (name, rules) in cases {
        assert_eq!(find("ClusterRole", name)["rules"], rules, "{name}");
    }
    let edit = find("ClusterRole", "edit");
    assert!(edit["rules"].is_null());
    assert_eq!(
        edit["aggregationRule"],
        json!({"clusterRoleSelectors": [
            {"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}}]})
    );
    assert_eq!(
        edit["metadata"]["labels"],
        json!({"kubernetes.io/bootstrapping": "rbac-defaults",
            "rbac.authorization.k8s.io/aggregate-to-admin": "true"})
    );
}

#[test]
fn what_was_added_to_a_default_stays_and_what_it_lacks_is_added() {
    let wanted = find("ClusterRoleBinding", "system:discovery");
    let other = json!({"kind": "User", "name": "ann", "apiGroup": GROUP});
    let mut found = wanted.clone();
    found["subjects"] = json!([other]);
    found["metadata"]["labels"] = json!({"own": "label"});
    let mended = mended(&found, wanted).expect("it lacks something");
    assert_eq!(mended["subjects"], json!([other, wanted["subjects"][0]]));
    let labels = json!({"own": "label", "kubernetes.io/bootstrapping": "rbac-defaults"});
    assert_eq!(mended["metadata"]["labels"], labels);
    assert_eq!(super::mended(&mended, wanted), None);
    found["metadata"]["annotations"][AUTOUPDATE] = "false".into();
    assert_eq!(super::mended(&found, wanted), None);
}
